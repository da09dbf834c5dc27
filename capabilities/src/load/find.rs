//! Which files the arguments of a command mean: files, directories with all
//! below them, patterns, and patterns of what to leave out.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Component, Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};

use super::LoadError;

/// In all that is named.
const FILES_MAX: usize = 10_000;
/// Directories in each other, which also ends a circle of links.
const DIRECTORY_DEPTH_MAX: usize = 16;
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What was named, in order.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    places: Vec<Place>,
    except: Vec<GlobMatcher>,
}

/// A file, or a directory of which some files are meant.
#[derive(Clone, Debug)]
struct Place {
    base: PathBuf,
    /// None: all of it.
    pattern: Option<GlobMatcher>,
}

impl Wanted {
    /// Reads arguments: a path that is there; a pattern with `*`, `?`, `[a]` or
    /// `{a,b}`, where `**` stands for any directories; or `!` and a pattern of
    /// files to leave out.
    ///
    /// # Errors
    /// If something is neither there nor a pattern.
    pub fn new(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let mut wanted = Self::default();
        for path in paths {
            let text = path.to_string_lossy();
            let text = text.strip_prefix("./").unwrap_or(&text);
            if let Some(pattern) = text.strip_prefix('!') {
                wanted.except.push(matcher(pattern)?);
                continue;
            }
            match fs::metadata(path) {
                Ok(_) => wanted.places.push(Place { base: path.clone(), pattern: None }),
                Err(_) if is_pattern(text) => {
                    let plain = |c: &Component<'_>| !is_pattern(&c.as_os_str().to_string_lossy());
                    let base: PathBuf = Path::new(text).components().take_while(plain).collect();
                    wanted.places.push(Place { base, pattern: Some(matcher(text)?) });
                }
                Err(source) => return Err(LoadError::Io { path: path.clone(), source }),
            }
        }
        Ok(wanted)
    }

    /// The directories and files that all of it is in, as they were named.
    pub fn bases(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().map(|place| shown(&place.base))
    }

    /// All files, each once; in the order of the arguments, and of names within
    /// one. Names that start with a dot are left out. Blocks.
    ///
    /// # Errors
    /// If a directory cannot be read, or there are too many files.
    pub fn find(&self) -> Result<Vec<PathBuf>, LoadError> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for place in &self.places {
            let mut files = Vec::new();
            let base = shown(&place.base);
            let metadata = fs::metadata(base);
            let metadata = metadata.map_err(|source| LoadError::Io { path: base.to_owned(), source })?;
            if metadata.is_dir() {
                list(base, 0, &mut files)?;
                files.retain(|file| place.takes(file));
            } else {
                files.push(base.to_owned());
            }
            found.extend(
                files.into_iter().filter(|file| !self.is_left_out(file) && seen.insert(file.clone())),
            );
            if found.len() > FILES_MAX {
                return Err(LoadError::ManyFiles { path: base.to_owned() });
            }
        }
        Ok(found)
    }

    /// Whether a file, which may be gone by now, is one of those meant.
    pub fn takes(&self, file: &Path) -> bool {
        let meant = self.places.iter().any(|place| {
            let Ok(rest) = file.strip_prefix(&place.base) else { return false };
            let whole = rest.as_os_str().is_empty();
            let shown = rest.components().all(|c| !c.as_os_str().to_string_lossy().starts_with('.'));
            whole || (shown && is_config(file) && place.takes(file))
        });
        meant && !self.is_left_out(file)
    }

    /// The name by which a file that the system tells of, by its absolute path,
    /// is known here.
    pub fn known_as(&self, absolute: &Path) -> Option<PathBuf> {
        self.places.iter().find_map(|place| {
            let base = std::path::absolute(shown(&place.base)).ok()?;
            let rest = absolute.strip_prefix(&base).ok()?;
            let whole = rest.as_os_str().is_empty();
            Some(if whole { place.base.clone() } else { place.base.join(rest) })
        })
    }

    fn is_left_out(&self, file: &Path) -> bool {
        self.except.iter().any(|except| except.is_match(file))
    }
}

impl Place {
    fn takes(&self, file: &Path) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(file))
    }
}

/// The empty path is this directory.
fn shown(base: &Path) -> &Path {
    if base.as_os_str().is_empty() { Path::new(".") } else { base }
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

fn matcher(pattern: &str) -> Result<GlobMatcher, LoadError> {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| LoadError::Pattern { pattern: pattern.to_owned(), reason: error.kind().to_string() })
}

fn is_config(path: &Path) -> bool {
    path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

fn list(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let failed = |source: io::Error| LoadError::Io { path: directory.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_dir = match entry.file_type() {
            Ok(kind) if !kind.is_symlink() => kind.is_dir(),
            _ => entry.path().is_dir(),
        };
        entries.push((entry.path(), is_dir));
    }
    entries.sort();
    for (path, is_dir) in entries {
        if path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if is_dir && depth < DIRECTORY_DEPTH_MAX {
            list(&path, depth + 1, files)?;
        } else if !is_dir && is_config(&path) {
            files.push(path.strip_prefix(".").map(Path::to_owned).unwrap_or(path));
        }
        if files.len() > FILES_MAX {
            return Err(LoadError::ManyFiles { path: directory.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn found(root: &Path, arguments: &[&str]) -> Vec<String> {
        let paths: Vec<PathBuf> = arguments
            .iter()
            .map(|argument| match argument.strip_prefix('!') {
                Some(rest) => PathBuf::from(format!("!{}", root.join(rest).display())),
                None => root.join(argument),
            })
            .collect();
        let wanted = Wanted::new(&paths).unwrap();
        let found = wanted.find().unwrap();
        assert!(found.iter().all(|file| wanted.takes(file)));
        found.iter().map(|file| file.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn a_directory_is_read_in_the_order_of_names() {
        let root = tree(&["c.yml", "a.YAML", "b/x.json", "b/.git/y.yaml", "notes.txt", ".hidden.yaml"]);
        assert_eq!(found(root.path(), &[""]), ["a.YAML", "b/x.json", "c.yml"]);
    }

    #[test]
    fn patterns_choose_files_and_leave_files_out() {
        let root = tree(&["a/one.yaml", "a/b/two.yaml", "a/b/three.json", "drafts/four.yaml"]);
        assert_eq!(found(root.path(), &["a/*.yaml"]), ["a/one.yaml"]);
        assert_eq!(found(root.path(), &["**/*.yaml"]), ["a/b/two.yaml", "a/one.yaml", "drafts/four.yaml"]);
        assert_eq!(found(root.path(), &["", "!drafts/**"]), ["a/b/three.json", "a/b/two.yaml", "a/one.yaml"]);
        assert_eq!(found(root.path(), &["a/b", "a"]), ["a/b/three.json", "a/b/two.yaml", "a/one.yaml"]);
        assert_eq!(found(root.path(), &["{a,drafts}/*.yaml"]), ["a/one.yaml", "drafts/four.yaml"]);
        assert!(found(root.path(), &["a/*.toml"]).is_empty());
    }

    #[test]
    fn what_is_neither_there_nor_a_pattern_is_refused() {
        let root = tree(&[]);
        assert!(matches!(Wanted::new(&[root.path().join("x.yaml")]), Err(LoadError::Io { .. })));
        assert!(matches!(Wanted::new(&[root.path().join("{a")]), Err(LoadError::Pattern { .. })));
    }

    #[test]
    fn a_file_that_the_system_tells_of_has_the_name_it_was_given_by() {
        let root = tree(&["a/one.yaml"]);
        let wanted = Wanted::new(&[root.path().join("a")]).unwrap();
        let file = root.path().join("a/one.yaml");
        assert_eq!(wanted.known_as(&file), Some(file));
        assert_eq!(wanted.known_as(&root.path().join("b/one.yaml")), None);
    }
}
