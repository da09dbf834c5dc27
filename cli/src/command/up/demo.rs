//! What `mtctl up` serves where nothing is configured.

use std::path::Path;

use mt_proto::pb::resource::{Resource, backend::Transport, resource::Spec};

use crate::output::{Exit, Failure};

const DEMO: &str = include_str!("../../../../capabilities/library/demo.yaml");

/// The resources of the demo, run by `program`: wherever that is, it need not
/// be in PATH.
///
/// # Errors
/// When the path of the program is not text.
pub fn resources(program: &Path) -> Result<Vec<Resource>, Failure> {
    let command = program.to_str().ok_or_else(|| {
        Failure::new(Exit::Failed, "cannot run the demo").cause(format!("{} is not UTF-8", program.display()))
    })?;
    let document = mt_capabilities::parse("demo.yaml", DEMO);
    let mut resources: Vec<Resource> =
        document.resources.into_iter().map(|located| located.resource).collect();
    for resource in &mut resources {
        if let Some(Spec::Backend(backend)) = &mut resource.spec
            && let Some(Transport::Stdio(stdio)) = &mut backend.transport
        {
            command.clone_into(&mut stdio.command);
        }
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use mt_proto::resource::ResourceSet;

    use super::*;

    #[test]
    fn the_demo_compiles() {
        let resources = resources(Path::new("/usr/bin/mtctl")).unwrap();
        assert!(resources.iter().any(|resource| format!("{resource:?}").contains("/usr/bin/mtctl")));
        let (set, problems) = ResourceSet::gather(resources);
        assert_eq!(problems, []);
        assert!(set.compile().is_ok_and(|compiled| compiled.backends.len() == 1));
    }
}
