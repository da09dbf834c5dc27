//! The checked-in bindings are what the .proto files say.
//!
//! `UPDATE_BINDINGS=1 cargo test -p mt-proto --test bindings` writes them anew;
//! no protoc is needed anywhere.

use std::{fs, path::Path};

const FILES: &[&str] = &[
    "envoy/service/discovery/v3/ads.proto",
    "magictunnel/control/v1/config.proto",
    "magictunnel/control/v1/fleet.proto",
    "magictunnel/discovery/v1/discovery.proto",
    "magictunnel/mcp/v1/mcp.proto",
    "magictunnel/node/v1/node.proto",
    "magictunnel/node/v1/relay.proto",
    "magictunnel/resource/v1/resource.proto",
];

#[test]
fn the_checked_in_bindings_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/gen");
    let fresh = tempfile::tempdir().unwrap();

    let mut compiler = protox::Compiler::new([root]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_files(FILES).unwrap();
    let descriptors = compiler.file_descriptor_set();
    fs::write(fresh.path().join("descriptors.bin"), compiler.encode_file_descriptor_set()).unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".") // Sorted maps: the same resource has the same bytes, so its hash names its content.
        .out_dir(fresh.path())
        .compile_fds(descriptors)
        .unwrap();

    let mut names: Vec<_> = fs::read_dir(fresh.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    if std::env::var_os("UPDATE_BINDINGS").is_some() {
        fs::remove_dir_all(&checked_in).unwrap();
        fs::create_dir_all(&checked_in).unwrap();
        for name in &names {
            fs::copy(fresh.path().join(name), checked_in.join(name)).unwrap();
        }
    }
    for name in &names {
        let (have, want) =
            (fs::read(checked_in.join(name)).unwrap_or_default(), fs::read(fresh.path().join(name)).unwrap());
        assert!(have == want, "{name:?} is not what the .proto files say: run with UPDATE_BINDINGS=1");
    }
    let mut kept: Vec<_> = fs::read_dir(&checked_in).unwrap().map(|e| e.unwrap().file_name()).collect();
    kept.sort();
    assert_eq!(kept, names, "src/gen holds files that no .proto file makes");
}
