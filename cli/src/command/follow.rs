//! Brings files into a control plane, and then what changes of them: one
//! generation for each change, all of it or nothing.
//!
//! A file with mistakes keeps what it last said without them, and so does
//! everything while files contradict each other or the control plane refuses
//! what they say together; what is wrong is told once, with its place.

mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use mt_capabilities::{Library, Touched, default_gateway};
use mt_proto::{
    pb::{
        control as pb,
        resource::{Resource, resource::Spec},
    },
    resource::{Key, Kind},
};
use parking_lot::Mutex;
use tracing::warn;

use self::source::Changes;
pub use self::source::Source;
use super::{Context, changes, signals::Signals};
use crate::{
    client::{self, Client},
    manifests,
    output::{Exit, Failure, Format, GOOD, WARN, count},
};

/// Files, and how far the control plane knows them.
pub struct Followed {
    library: Arc<Mutex<Library>>,
    /// On everything that comes from them.
    label: Option<(&'static str, &'static str)>,
    /// Serve what is there by a gateway `default`, where the files have none.
    gateway: bool,
    /// It is one of ours that is in.
    gateway_is_in: bool,
    /// What was told last of what is wrong.
    told: String,
}

impl Followed {
    /// What carries `label` in the control plane is managed by these files alone.
    pub fn new(library: Library, label: Option<(&'static str, &'static str)>) -> Self {
        Self {
            library: Arc::new(Mutex::new(library)),
            label,
            gateway: false,
            gateway_is_in: false,
            told: String::new(),
        }
    }

    /// Brings everything in, and takes out what has all of the labels `prune`
    /// and is not in the files.
    ///
    /// # Errors
    /// When the control plane refuses it, with the places of the reasons.
    pub async fn begin(
        &mut self,
        client: &mut Client,
        prune: BTreeMap<String, String>,
        message: &str,
    ) -> Result<pb::ApplyResponse, Failure> {
        if let Some(label) = self.label {
            let (gateways, _) = client.list(Some(Kind::Gateway), &[], 0).await?;
            let mut stored = gateways.iter().filter_map(|stored| stored.resource.as_ref()?.metadata.as_ref());
            self.gateway = !stored.any(|m| m.name == "default" && !m.labels.contains_key(label.0));
        }
        // The files are followed from before, so nothing is missed if one has
        // changed since they were read first.
        self.refresh(Touched::Everything).await?;
        let mut resources = self.library.lock().resources();
        self.gateway_is_in = self.wants_gateway();
        resources.extend(self.gateway_is_in.then(default_gateway));
        let request = self.request(resources, Vec::new(), prune, message);
        let answer = self.send(client, request).await?;
        self.library.lock().told();
        Ok(answer)
    }

    /// In tool sets of the files.
    pub fn tools(&self) -> usize {
        let count = |resource: &Resource| match &resource.spec {
            Some(Spec::ToolSet(tool_set)) if !tool_set.disabled => tool_set.tools.len(),
            _ => 0,
        };
        self.library.lock().resources().iter().map(count).sum()
    }

    fn wants_gateway(&self) -> bool {
        self.gateway && !self.library.lock().has(Kind::Gateway)
    }

    fn request(
        &self,
        resources: Vec<Resource>,
        delete: Vec<Key>,
        prune_labels: BTreeMap<String, String>,
        message: &str,
    ) -> pb::ApplyRequest {
        let ours = |resource| match self.label {
            Some(label) => labelled(resource, label),
            None => resource,
        };
        pb::ApplyRequest {
            resources: resources.into_iter().map(ours).collect(),
            delete: delete.iter().map(|key| client::reference(key.kind, key.name.as_str())).collect(),
            prune_labels,
            author: client::author(),
            message: message.to_owned(),
            ..Default::default()
        }
    }

    async fn send(
        &self,
        client: &mut Client,
        request: pb::ApplyRequest,
    ) -> Result<pb::ApplyResponse, Failure> {
        match client.config.apply(request).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                let failure = client.failure("nothing was applied", &status);
                let place = |problems: &[_]| self.library.lock().place(problems);
                Err(manifests::locate(failure, &status, place))
            }
        }
    }

    /// Follows changes for as long as it is polled, and tells what they come to.
    pub async fn follow(
        mut self,
        context: &Context,
        client: &mut Client,
        mut changes: Changes,
    ) -> Infallible {
        loop {
            let touched = changes.next().await;
            self.reload(context, client, touched).await;
        }
    }

    async fn reload(&mut self, context: &Context, client: &mut Client, touched: Touched) {
        let answer = match self.refresh(touched).await {
            Ok(()) => self.change(client).await,
            Err(failure) => Err(failure),
        };
        let output = &context.output;
        let mut told = String::new();
        let mut changed = false;
        match answer {
            Ok(Some(answer)) if !answer.changes.is_empty() => {
                changed = true;
                let names: Vec<String> = answer
                    .changes
                    .iter()
                    .map(|c| format!("{} {}", changes::name(c), changes::action(c)))
                    .collect();
                let changes = count(names.len(), "change");
                let generation = answer.generation;
                output.say(format_args!(
                    "{GOOD}generation {generation}{GOOD:#}: {changes}: {}",
                    names.join(", ")
                ));
            }
            Ok(_) => {}
            Err(failure) => {
                told = failure.note("what was served before is still served").render(Format::Table);
            }
        }
        told.push_str(&self.mistakes());
        // What was told is not told twice: a log in a followed directory would
        // be a change again.
        if told != self.told && !told.is_empty() {
            output.say(&told);
        } else if told.is_empty() && !self.told.is_empty() && !changed {
            output.say(format_args!("{GOOD}the files are valid again{GOOD:#} and say what is served"));
        }
        self.told = told;
    }

    async fn refresh(&mut self, touched: Touched) -> Result<(), Failure> {
        let library = self.library.clone();
        let read = tokio::task::spawn_blocking(move || library.lock().refresh(&touched)).await;
        let read = read.map_err(|error| Failure::new(Exit::Failed, "cannot read the files").cause(error))?;
        read.map(drop).map_err(|error| manifests::unreadable(&error))
    }

    /// None if there is nothing to be changed.
    async fn change(&mut self, client: &mut Client) -> Result<Option<pb::ApplyResponse>, Failure> {
        if self.library.lock().is_empty() {
            // More often an accident than a wish.
            return Err(Failure::new(Exit::Usage, "the files have no resources any more"));
        }
        let wrong = |mistakes: Vec<_>| manifests::report(&mistakes, "the files contradict each other");
        let mut pending = self.library.lock().pending().map_err(wrong)?;
        let wants_gateway = self.wants_gateway();
        match (self.gateway_is_in, wants_gateway) {
            (false, true) => pending.changed.push(default_gateway()),
            (true, false) => {
                let key = Key::of(&default_gateway()).expect("it has a kind and a name");
                if !pending.changed.iter().any(|resource| Key::of(resource).as_ref() == Some(&key)) {
                    pending.removed.push(key);
                }
            }
            _ => {}
        }
        if pending.changed.is_empty() && pending.removed.is_empty() {
            return Ok(None);
        }
        let request = self.request(pending.changed, pending.removed, BTreeMap::new(), "changed files");
        let answer = self.send(client, request).await?;
        self.library.lock().told();
        self.gateway_is_in = wants_gateway;
        Ok(Some(answer))
    }

    /// What is wrong with single files, in words.
    fn mistakes(&self) -> String {
        let library = self.library.lock();
        let mistakes = library.mistakes();
        if mistakes.is_empty() {
            return String::new();
        }
        for mistake in &mistakes {
            warn!(
                file = %mistake.file,
                line = mistake.line,
                column = mistake.column,
                reason = %mistake.message,
                "a file has a mistake, its last good version stays"
            );
        }
        let files = mistakes.iter().map(|mistake| mistake.file.as_str());
        let kept: BTreeSet<&str> = files.filter(|file| library.keeps(file)).collect();
        let mut text = mt_capabilities::render(&mistakes);
        for file in kept {
            text.push_str(&format!(
                "{WARN}{}{WARN:#} has mistakes: what was served before is still served\n",
                mt_capabilities::escaped(file)
            ));
        }
        text
    }
}

/// `mtctl apply --watch`: applies, and follows the files until it is stopped.
///
/// # Errors
/// When the first application fails, or the files cannot be followed.
pub async fn run(
    context: &Context,
    client: &mut Client,
    source: &Source,
    library: Library,
    prune: BTreeMap<String, String>,
    message: &str,
) -> Result<Exit, Failure> {
    // From before the first reading goes in, so that no change falls in between.
    let changes = source.watch()?;
    let mut followed = Followed::new(library, None);
    let answer = followed.begin(client, prune, message).await?;
    changes::print(context, answer.generation, &answer.changes, false)?;
    context.output.say(format_args!("following changes of {}; Ctrl-C stops it", source.name()));
    let mut signals = Signals::new()?;
    tokio::select! {
        never = followed.follow(context, client, changes) => match never {},
        () = signals.next() => Ok(Exit::Ok),
    }
}

/// With one label more.
pub fn labelled(mut resource: Resource, (key, value): (&str, &str)) -> Resource {
    resource.metadata.get_or_insert_default().labels.insert(key.to_owned(), value.to_owned());
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_added_to_those_that_are_there() {
        let resource = labelled(labelled(Resource::default(), ("a", "1")), ("b", "2"));
        assert_eq!(resource.metadata.unwrap().labels.len(), 2);
    }
}
