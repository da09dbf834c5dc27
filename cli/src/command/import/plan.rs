//! What an import would do, beside what is there. Pure.

use serde_json::{Value, json};

use mt_capabilities::{Import, Note, Outcome};
use mt_proto::{
    pb::resource::{Gateway, Member, Metadata, Resource, backend::Transport, member::Source, resource::Spec},
    resource::{Key, Kind, ResourceSet},
};

use crate::{
    command::exact,
    output::{Exit, Table},
};

/// What happens to one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    New,
    /// It is there already, and says the same.
    Same,
    /// Something else is there under its name.
    Conflict,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Fate::New => "NEW",
            Fate::Same => "SAME",
            Fate::Conflict => "CONFLICT",
        }
    }
}

/// One resource of the import.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: Key,
    pub fate: Fate,
    resource: Resource,
}

impl Row {
    pub fn name(&self) -> String {
        self.key.to_string()
    }
}

/// The whole import.
#[derive(Clone, Debug)]
pub struct Plan {
    rows: Vec<Row>,
    notes: Vec<Note>,
}

impl Plan {
    /// Compares an import with what is there, and adds the gateway that shows
    /// it if there is none.
    pub fn new(import: Import, stored: &ResourceSet, gateway: &str) -> Self {
        let mut resources = import.resources;
        let mut notes = import.notes;
        let wanted = gateway.parse().ok().map(|name| Key::new(Kind::Gateway, name));
        let is_gateway = |resource: &Resource| Kind::of(resource) == Some(Kind::Gateway);
        let missing = wanted.is_some_and(|key| {
            stored.get(&key).is_none()
                && !resources.iter().any(|resource| Key::of(resource).as_ref() == Some(&key))
        });
        // A file that brings its own gateways says how its servers are shown.
        if missing && !resources.is_empty() && !resources.iter().any(is_gateway) {
            resources.push(new_gateway(gateway, &resources));
        } else if gateway != "default" && !missing {
            notes.push(about_all(format!(
                "gateway {gateway} is there and is not changed; its members decide what it shows"
            )));
        }
        let rows = resources.into_iter().filter_map(|resource| {
            let key = Key::of(&resource)?;
            let fate = match stored.get(&key) {
                None => Fate::New,
                Some(there) if there.spec == resource.spec => Fate::Same,
                Some(_) => Fate::Conflict,
            };
            Some(Row { key, fate, resource })
        });
        Self { rows: rows.collect(), notes }
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// What a person has to know; that an entry was taken, the table says.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let notes = self.notes.iter().filter(|note| note.outcome != Outcome::Taken);
        notes.map(|note| match (note.entry.as_str(), note.outcome) {
            ("", _) => note.text.clone(),
            (entry, Outcome::KeptOut) => format!("{entry} is kept out: {}", note.text),
            (entry, _) => format!("{entry}: {}", note.text),
        })
    }

    /// What is to be applied.
    pub fn to_apply(&self, replace: bool) -> Vec<Resource> {
        let wanted = |row: &&Row| row.fate == Fate::New || (row.fate == Fate::Conflict && replace);
        self.rows.iter().filter(wanted).map(|row| row.resource.clone()).collect()
    }

    /// What is left undone is said to scripts too.
    pub fn exit(&self, replace: bool) -> Exit {
        let kept = !replace && self.rows.iter().any(|row| row.fate == Fate::Conflict);
        let kept_out = self.notes.iter().any(|note| note.outcome == Outcome::KeptOut);
        if kept || kept_out { Exit::Partial } else { Exit::Ok }
    }

    pub fn table(&self) -> String {
        let mut table = Table::new(["NAME", "PLAN", "RUNS", "WITH"]);
        for row in &self.rows {
            table.row([
                row.name(),
                row.fate.word().to_owned(),
                exact(&row.resource),
                settings(&row.resource).join(" "),
            ]);
        }
        table.render()
    }

    pub fn to_value(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "resource": row.name(),
                "plan": row.fate.word(),
                "runs": exact(&row.resource),
                "with": settings(&row.resource),
            })
        });
        json!({"resources": rows.collect::<Vec<_>>(), "notes": self.notes})
    }
}

fn about_all(text: String) -> Note {
    Note { entry: String::new(), outcome: Outcome::Changed, text }
}

/// The gateway `default` shows every backend; another one shows what comes
/// with it.
fn new_gateway(name: &str, imported: &[Resource]) -> Resource {
    if name == "default" {
        return mt_capabilities::default_gateway();
    }
    let backends = imported.iter().filter_map(Key::of).filter(|key| key.kind == Kind::Backend);
    let members = backends
        .map(|key| Member { source: Some(Source::Backend(key.name.to_string())), ..Default::default() });
    let gateway = Gateway { members: members.collect(), ..Default::default() };
    Resource {
        metadata: Some(Metadata { name: name.to_owned(), ..Default::default() }),
        spec: Some(Spec::Gateway(gateway)),
    }
}

/// Whether a node runs a program for it.
pub fn runs_a_command(resource: &Resource) -> bool {
    matches!(&resource.spec, Some(Spec::Backend(backend)) if matches!(backend.transport, Some(Transport::Stdio(_))))
}

/// The names of what is passed along; never the values.
fn settings(resource: &Resource) -> Vec<String> {
    let Some(Spec::Backend(backend)) = &resource.spec else { return Vec::new() };
    match &backend.transport {
        Some(Transport::Stdio(stdio)) => stdio.env.iter().map(|variable| variable.name.clone()).collect(),
        Some(Transport::Http(http) | Transport::Sse(http) | Transport::Websocket(http)) => {
            http.headers.iter().map(|header| header.name.clone()).collect()
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use mt_proto::pb::resource::{
        Backend, EnvVar, HttpTransport, StdioTransport, Value as PbValue, value::Source as ValueSource,
    };

    use super::*;

    fn http(name: &str, url: &str) -> Resource {
        let transport = Transport::Http(HttpTransport { url: url.into(), ..Default::default() });
        resource(name, Backend { transport: Some(transport), ..Default::default() })
    }

    fn stdio(name: &str) -> Resource {
        let value = PbValue { source: Some(ValueSource::Text("hunter2".into())) };
        let transport = Transport::Stdio(StdioTransport {
            command: "npx".into(),
            args: vec!["-y".into(), "pkg".into()],
            env: vec![EnvVar { name: "TOKEN".into(), value: Some(value) }],
            ..Default::default()
        });
        resource(name, Backend { transport: Some(transport), ..Default::default() })
    }

    fn resource(name: &str, backend: Backend) -> Resource {
        let metadata = Metadata { name: name.into(), ..Default::default() };
        Resource { metadata: Some(metadata), spec: Some(Spec::Backend(backend)) }
    }

    fn plan(resources: Vec<Resource>, stored: Vec<Resource>, gateway: &str) -> Plan {
        let import = Import { format: "mcpServers", resources, notes: Vec::new() };
        Plan::new(import, &ResourceSet::gather(stored).0, gateway)
    }

    #[test]
    fn the_plan_shows_what_is_new_the_same_and_in_conflict() {
        let stored = vec![http("same", "http://a/"), http("other", "http://b/")];
        let plan = plan(
            vec![stdio("git"), http("same", "http://a/"), http("other", "http://c/")],
            stored,
            "default",
        );
        insta::assert_snapshot!(plan.table(), @r"
        NAME             PLAN      RUNS        WITH
        backend/git      NEW       npx -y pkg  TOKEN
        backend/same     SAME      http://a/   -
        backend/other    CONFLICT  http://c/   -
        gateway/default  NEW       2 members   -
        ");
        assert!(
            !format!("{}{}", plan.table(), plan.to_value()).contains("hunter2"),
            "values are never shown"
        );
    }

    #[test]
    fn what_is_in_conflict_is_kept_unless_told() {
        let plan = plan(
            vec![http("a", "http://new/")],
            vec![http("a", "http://old/"), mt_capabilities::default_gateway()],
            "default",
        );
        assert!(plan.to_apply(false).is_empty());
        assert_eq!(plan.exit(false), Exit::Partial);
        assert_eq!(plan.to_apply(true).len(), 1);
        assert_eq!(plan.exit(true), Exit::Ok);
    }

    #[test]
    fn what_is_kept_out_is_said_and_makes_the_import_partial() {
        let note = |entry: &str, outcome| Note { entry: entry.into(), outcome, text: "why".into() };
        let notes = vec![note("a", Outcome::Taken), note("b", Outcome::KeptOut)];
        let import = Import { format: "mcpServers", resources: Vec::new(), notes };
        let plan = Plan::new(import, &ResourceSet::default(), "default");
        assert_eq!(plan.notes().collect::<Vec<_>>(), ["b is kept out: why"]);
        assert_eq!((plan.exit(false), plan.rows().count()), (Exit::Partial, 0));
    }

    #[test]
    fn a_new_gateway_of_another_name_shows_what_comes_with_it() {
        let plan = plan(vec![http("a", "http://a/")], Vec::new(), "team");
        let gateway = plan.to_apply(false).pop().unwrap();
        assert_eq!(Key::of(&gateway).unwrap().to_string(), "gateway/team");
        assert_eq!(exact(&gateway), "1 member");
    }
}
