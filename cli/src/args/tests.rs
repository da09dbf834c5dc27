//! What may be typed, and what is said of the rest.

use super::*;

fn parsed(line: &str) -> Cli {
    help::try_parse(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> String {
    help::try_parse(line.split_whitespace()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn the_definition_holds_together() {
    command().debug_assert();
}

#[test]
fn global_options_may_stand_after_the_command() {
    let cli = parsed("mtctl get backends -o yaml --server http://h:1");
    assert_eq!(cli.global.output, Format::Yaml);
    assert_eq!(cli.global.server.as_deref(), Some("http://h:1"));
}

#[test]
fn kinds_are_read_in_every_usual_form() {
    for (typed, kind) in [
        ("backend", Kind::Backend),
        ("backends", Kind::Backend),
        ("ToolSet", Kind::ToolSet),
        ("policies", Kind::Policy),
        ("gw", Kind::Gateway),
    ] {
        let Command::Get(args) = parsed(&format!("mtctl get {typed}")).command else { panic!("{typed}") };
        assert_eq!(args.kind.kind(), Some(kind));
    }
}

#[test]
fn every_kind_can_be_typed_as_it_is_printed() {
    for kind in Kind::ALL {
        for typed in [kind.slug(), kind.yaml()] {
            let Command::Get(args) = parsed(&format!("mtctl get {typed}")).command else { panic!("{typed}") };
            assert_eq!(args.kind.kind(), Some(kind));
        }
    }
}

#[test]
fn a_mistyped_command_is_answered_with_the_near_one() {
    assert!(refused("mtctl stauts").contains("'status'"));
    assert!(refused("mtctl get backnd").contains("'backend'"));
}

#[test]
fn diff_takes_files_or_generations_but_not_both() {
    assert!(refused("mtctl diff -f x.yaml 3").contains("cannot be used with"));
    assert!(refused("mtctl diff").contains("required"));
    let Command::Diff(args) = parsed("mtctl diff 3 5").command else { panic!() };
    assert_eq!((args.from, args.to), (Some(3), Some(5)));
}

#[test]
fn delete_needs_names_or_files() {
    assert!(refused("mtctl delete backend").contains("required"));
    let Command::Delete(args) = parsed("mtctl delete backend a b").command else { panic!() };
    assert_eq!(args.names, ["a", "b"]);
}

#[test]
fn a_url_replaces_the_gateway() {
    assert!(refused("mtctl call t --gateway g --url http://x/mcp").contains("cannot be used with"));
    let Command::Call(args) = parsed("mtctl call t a=1 b:=[2] --url http://x/mcp").command else { panic!() };
    assert_eq!(args.arguments, ["a=1", "b:=[2]"]);
}

#[test]
fn times_labels_and_addresses_say_how_they_are_written() {
    assert!(refused("mtctl up --listen 3001").contains("as in 127.0.0.1:3001"));
    assert!(refused("mtctl down --wait soon").contains("30s"));
    assert!(refused("mtctl get all -l nolabel").contains("key=value"));
}
