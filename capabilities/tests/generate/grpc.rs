//! Tools of gRPC services.

use super::*;

const SHOP: &str = r#"
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/struct.proto";

// Orders of the shop.
service Orders {
  // Gets one order.
  rpc Get(GetRequest) returns (Order) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Watch(GetRequest) returns (stream Order);
  rpc Put(stream Order) returns (GetRequest);
  rpc Old(GetRequest) returns (Order) { option deprecated = true; }
}
message GetRequest {
  // Which one.
  string order_id = 1;
  oneof by { string name = 2; int64 number = 3; }
  map<string, State> states = 4;
  repeated bytes blobs = 5;
  google.protobuf.Timestamp since = 6;
  google.protobuf.Struct more = 7;
  Order like = 8;
}
message Order { uint64 id = 1; State state = 2; repeated Order parts = 3; double price = 4; }
enum State { STATE_UNSPECIFIED = 0; NEW = 1; }
"#;

fn descriptors() -> Vec<u8> {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("shop.proto"), SHOP).unwrap();
    let mut compiler = protox::Compiler::new([root.path()]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_file("shop.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

#[test]
fn services_become_tools() {
    let given = Options { source: "http://127.0.0.1:50051".into(), ..options("shop") };
    let generated = generate::grpc(&descriptors(), &given).unwrap();
    loaded(&generated);
    insta::assert_snapshot!(shown(&generated));
}

#[test]
fn a_file_of_descriptors_goes_into_the_tools() {
    let given = Options { base_url: Some("http://h:1".into()), ..options("shop") };
    let generated = generate::grpc(&descriptors(), &given).unwrap();
    loaded(&generated);
    assert!(generated.files[0].text.contains("base64: "));
    assert!(matches!(
        generate::grpc(&descriptors(), &options("shop")),
        Err(GenerateError::Unusable { message, .. }) if message == "nobody says where the service is"
    ));
}

#[test]
fn descriptors_of_another_syntax_are_refused() {
    let mut set = prost_types::FileDescriptorSet::decode(descriptors().as_slice()).unwrap();
    set.file[0].syntax = Some("editions".into());
    let given = Options { base_url: Some("http://h:1".into()), ..options("shop") };
    assert!(matches!(
        generate::grpc(&set.encode_to_vec(), &given),
        Err(GenerateError::Unusable { message, .. }) if message.contains("is written in \"editions\"")
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_change_of_descriptors_makes_the_generator_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = descriptors();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let given = Options { base_url: Some("http://h:1".into()), ..options("shop") };
        match generate::grpc(&bytes, &given) {
            Ok(generated) => _ = loaded(&generated),
            Err(GenerateError::Broken(diagnostics)) => panic!("{diagnostics:?}"),
            Err(_) => {}
        }
    }
}
