use super::*;

struct Fixture {
    root: tempfile::TempDir,
    library: Library,
}

fn tools(name: &str) -> String {
    format!("tools:\n  - name: {name}\n    routing: {{type: http, config: {{url: 'http://127.0.0.1/'}}}}\n")
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), text).unwrap();
        }
        let mut library = Library::open(&[root.path().to_owned()]).unwrap();
        library.told();
        Self { root, library }
    }

    fn write(&mut self, file: &str, text: &str) -> usize {
        fs::write(self.root.path().join(file), text).unwrap();
        self.touch(file)
    }

    fn touch(&mut self, file: &str) -> usize {
        let path = std::path::absolute(self.root.path().join(file)).unwrap();
        self.library.refresh(&Touched::Paths([path].into())).unwrap()
    }

    /// What is pending, as `+tool-set/a -tool-set/b`.
    fn pending(&self) -> String {
        let pending = self.library.pending().unwrap();
        let changed = pending.changed.iter().filter_map(Key::of).map(|key| format!("+{key}"));
        let removed = pending.removed.iter().map(|key| format!("-{key}"));
        changed.chain(removed).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn after_an_edit_only_that_file_is_read_and_only_its_resources_are_told() {
    let mut f =
        Fixture::new(&[("a.yaml", &tools("one")), ("b/c.yaml", &tools("two")), ("d.yaml", &tools("three"))]);
    assert_eq!(f.pending(), "");
    assert_eq!(f.write("b/c.yaml", &tools("four")), 1);
    assert_eq!(f.pending(), format!("+{}", key("c")));
    f.library.told();
    assert_eq!(f.write("b/c.yaml", &tools("four")), 0, "the text is the same");
    assert_eq!(f.write("b/c.yaml", &format!("# a comment\n{}", tools("four"))), 1);
    assert_eq!(f.pending(), "");
}

fn key(name: &str) -> Key {
    Key::new(Kind::ToolSet, name.parse().unwrap())
}

#[test]
fn a_file_with_mistakes_keeps_what_it_gave_and_others_go_on() {
    let mut f = Fixture::new(&[("a.yaml", &tools("one")), ("b.yaml", &tools("two"))]);
    f.write("a.yaml", "tools: [\n");
    f.write("b.yaml", &tools("three"));
    assert_eq!(f.pending(), format!("+{}", key("b")));
    let mistakes = f.library.mistakes();
    assert!(!mistakes.is_empty() && mistakes.iter().all(|d| d.file.ends_with("a.yaml") && d.line > 0));
    assert!(f.library.keeps(&mistakes[0].file));
    // A mistake that only compiling shows is one too.
    f.write("a.yaml", &tools("one").replace("http,", "htpp,"));
    assert!(f.library.mistakes()[0].message.contains("htpp"), "{:?}", f.library.mistakes());
    f.write("a.yaml", &tools("one"));
    assert_eq!(f.library.mistakes(), []);
    assert_eq!(f.pending(), format!("+{}", key("b")));
}

#[test]
fn what_is_gone_is_told_and_what_was_not_taken_stays_pending() {
    let mut f = Fixture::new(&[("a.yaml", &tools("one")), ("b.yaml", &tools("two"))]);
    fs::remove_file(f.root.path().join("a.yaml")).unwrap();
    f.touch("a.yaml");
    assert_eq!(f.pending(), format!("-{}", key("a")));
    f.write("c.yaml", &tools("three"));
    assert_eq!(f.pending(), format!("+{} -{}", key("c"), key("a")));
    fs::rename(f.root.path().join("c.yaml"), f.root.path().join("a.yaml")).unwrap();
    f.library.refresh(&Touched::Everything).unwrap();
    assert_eq!(f.pending(), format!("+{} -{}", key("a"), key("c")));
}

#[test]
fn files_that_give_the_same_are_a_mistake_of_all() {
    let mut f = Fixture::new(&[("a/tools.yaml", &tools("one")), ("b/other.yaml", &tools("two"))]);
    f.write("b/tools.yaml", &tools("three"));
    let mistakes = f.library.pending().unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].file.ends_with("b/tools.yaml"), "{mistakes:?}");
    assert!(mistakes[0].hint.as_ref().is_some_and(|hint| hint.contains("a/tools.yaml:1")), "{mistakes:?}");
    f.write("b/tools.yaml", &format!("metadata: {{name: third}}\n{}", tools("three")));
    // What was in doubt is told again, though it is as it was.
    assert_eq!(f.pending(), format!("+{} +{}", key("third"), key("tools")));
}

#[test]
fn a_directory_that_goes_takes_its_files_along() {
    let mut f = Fixture::new(&[
        ("a.yaml", &tools("one")),
        ("b/c.yaml", &tools("two")),
        ("b/d.yaml", &tools("three")),
    ]);
    fs::remove_dir_all(f.root.path().join("b")).unwrap();
    f.touch("b");
    assert_eq!(f.pending(), format!("-{} -{}", key("c"), key("d")));
}
