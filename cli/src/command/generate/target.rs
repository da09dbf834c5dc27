//! Where generated files go: into a directory, or to the control plane.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mt_capabilities::generate::{File, Generated};
use mt_proto::{
    pb::{
        control as pb,
        resource::{Resource, resource::Spec},
    },
    resource::{Key, ResourceSet},
};

use crate::{
    client,
    command::{Context, changes},
    manifests::Manifests,
    output::{Exit, Failure, Format, GOOD, count, diff::unified, escape},
};

/// Whether a path is meant to be a file, and not a directory.
pub fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"))
}

/// Writes the files, all or none: what is there and different stays, unless
/// `force` is given, and is shown.
///
/// # Errors
/// When something different is there, or something cannot be written.
pub fn write(context: &Context, files: &[File], path: &Path, force: bool) -> Result<(), Failure> {
    let places = places(files, path)?;
    let mut different = Vec::new();
    for (place, file) in &places {
        match fs::read_to_string(place) {
            Ok(there) if there == file.text => {}
            Ok(there) => different.push((place, there, &file.text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(place, &error)),
        }
    }
    if !different.is_empty() && !force {
        for (place, there, text) in &different {
            let name = place.display().to_string();
            context.output.say(
                unified(&format!("{name} (there)"), there, &format!("{name} (made now)"), text).trim_end(),
            );
        }
        let names: Vec<String> = different.iter().map(|(place, _, _)| place.display().to_string()).collect();
        return Err(Failure::new(Exit::Conflict, "nothing was written")
            .cause(format!("{} is there, and different", names.join(", ")))
            .try_this("the same with --force, to replace what is there"));
    }
    for (place, file) in &places {
        put(place, &file.text).map_err(|error| unwritable(place, &error))?;
        context.output.say(format_args!("{GOOD}wrote{GOOD:#} {}", escape(&place.display().to_string())));
    }
    Ok(())
}

fn places<'a>(files: &'a [File], path: &Path) -> Result<Vec<(PathBuf, &'a File)>, Failure> {
    if is_file(path) && !path.is_dir() {
        return match files {
            [only] => Ok(vec![(path.to_owned(), only)]),
            _ => Err(Failure::new(Exit::Usage, format!("there are {} files, and one name", files.len()))
                .note("a resource has at most 1 MiB, so it takes several")
                .try_this("--write DIRECTORY")),
        };
    }
    Ok(files.iter().map(|file| (path.join(format!("{}.yaml", file.stem)), file)).collect())
}

/// A reader sees the file as it was or as it is now.
fn put(place: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = place.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let beside = place.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, place));
    if written.is_err() {
        // What is half written is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn unwritable(place: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot write {}", place.display())).cause(error)
}

/// Sends what was made to the control plane. Secrets that are there stay as
/// they are: somebody has said where they come from.
///
/// # Errors
/// When it is declined, or not taken.
pub async fn apply(context: &Context, generated: &Generated) -> Result<Exit, Failure> {
    let read = |file: &File| mt_capabilities::parse(&format!("{}.yaml", file.stem), &file.text);
    let manifests = Manifests { documents: generated.files.iter().map(read).collect() };
    let mut client = context.client().await?;
    let (stored, generation) = client.list(None, &[], 0).await?;
    let (there, _) = ResourceSet::gather(stored.into_iter().filter_map(|stored| stored.resource));
    let is_kept = |resource: &Resource| {
        let known = Key::of(resource).is_some_and(|key| there.get(&key).is_some());
        known && matches!(resource.spec, Some(Spec::Secret(_)))
    };
    let resources: Vec<Resource> = manifests.resources().into_iter().filter(|r| !is_kept(r)).collect();
    let question = format!("Apply {}?", count(resources.len(), "resource"));
    if !context.output.confirm(&question, true) {
        return Err(Failure::new(Exit::No, "nothing was applied"));
    }
    let request = pb::ApplyRequest {
        resources,
        // What was shown is what is done.
        expected_generation: generation,
        author: client::author(),
        message: format!("made of {}", generated.title),
        ..Default::default()
    };
    let answer = changes::send(&mut client, &manifests, request).await?;
    match context.format() {
        Format::Table | Format::Yaml => changes::print(context, answer.generation, &answer.changes, false)?,
        Format::Json | Format::Name => {
            let changes = count(answer.changes.len(), "change");
            context.output.say(format_args!("{GOOD}generation {}{GOOD:#}: {changes}", answer.generation));
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    fn context() -> Context {
        let output = Output { format: Format::Table, interactive: false };
        let cli = crate::args::try_parse(["mtctl", "status"]).unwrap();
        Context { global: cli.global, output }
    }

    #[test]
    fn what_is_there_is_replaced_only_when_forced() {
        let root = tempfile::tempdir().unwrap();
        let file = |text: &str| vec![File { stem: "shop".into(), text: text.into() }];
        let path = root.path().join("deep/shop.yaml");
        write(&context(), &file("a\n"), &path, false).unwrap();
        write(&context(), &file("a\n"), &path, false).unwrap();
        let refused = write(&context(), &file("b\n"), &path, false).unwrap_err();
        assert_eq!(refused.exit, Exit::Conflict);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
        write(&context(), &file("b\n"), &path, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
        write(&context(), &file("c\n"), root.path(), false).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("shop.yaml")).unwrap(), "c\n");
        assert_eq!(fs::read_dir(root.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn several_files_need_a_directory() {
        let files = ["a", "b"].map(|stem| File { stem: stem.into(), text: String::new() });
        assert_eq!(places(&files, Path::new("x.yaml")).unwrap_err().exit, Exit::Usage);
        assert_eq!(places(&files, Path::new("x")).unwrap()[1].0, Path::new("x/b.yaml"));
    }
}
