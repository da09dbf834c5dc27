//! Tools of GraphQL schemas.

use serde_json::json;

use super::*;

const LIBRARY: &str = r#"
schema { query: Root, mutation: Change, subscription: Live }
type Root {
  "One book."
  book(id: ID!): Book
  books(filter: Filter, first: Int! = 10, tags: [String!]): [Book!]!
  search(text: String!): [Found]
  count: Int
  old: Int @deprecated(reason: "no")
}
type Change {
  """
  Adds a book.
  """
  addBook(input: NewBook!): Book!
}
type Live { added: Book }
interface Named { name: String! }
type Author implements Named { name: String!, books: [Book] page(number: Int!): Book }
type Book { id: ID!, title: String, state: State, author: Author, parts: [Book] }
union Found = Book | Author
enum State { NEW OLD }
scalar Date
input NewBook { title: String!, state: State = NEW, since: Date, sequel: NewBook }
input Filter { title: String, any: [Filter!] }
extend type Root { extra: String }
"#;

fn at(endpoint: &str) -> Options {
    Options { base_url: Some(endpoint.into()), auth: Some(Auth::Bearer), ..options("library") }
}

#[test]
fn a_schema_becomes_tools() {
    let generated = generate::graphql("f", LIBRARY, &at("https://h/graphql")).unwrap();
    loaded(&generated);
    insta::assert_snapshot!(shown(&generated));
}

#[test]
fn introspection_gives_what_the_language_gives() {
    let named = |kind: &str, name: &str| json!({"kind": kind, "name": name});
    let required = |inner: Value| json!({"kind": "NON_NULL", "ofType": inner});
    let list = |inner: Value| json!({"kind": "LIST", "ofType": inner});
    let answer = json!({"data": {"__schema": {
        "queryType": {"name": "Root"},
        "types": [
            {"kind": "OBJECT", "name": "Root", "fields": [{
                "name": "books", "description": "All books.", "isDeprecated": false,
                "args": [{"name": "first", "type": required(named("SCALAR", "Int")), "defaultValue": "10"}],
                "type": required(list(required(named("OBJECT", "Book")))),
            }]},
            {"kind": "OBJECT", "name": "Book", "fields": [
                {"name": "title", "args": [], "type": named("SCALAR", "String")},
                {"name": "state", "args": [], "type": named("ENUM", "State")},
            ]},
            {"kind": "ENUM", "name": "State", "enumValues": [{"name": "NEW"}]},
        ],
    }}});
    let language = "type Root { \"All books.\" books(first: Int! = 10): [Book!]! } \
                    type Book { title: String state: State } enum State { NEW } schema { query: Root }";
    let options = at("https://h/graphql");
    let asked = generate::graphql("f", &answer.to_string(), &options).unwrap();
    let written = generate::graphql("f", language, &options).unwrap();
    assert_eq!(asked.files, written.files);
}

#[test]
fn what_is_no_schema_says_why() {
    let message = |text: &str| match generate::graphql("f", text, &at("https://h")) {
        Err(GenerateError::Unusable { message, .. }) => message,
        Err(GenerateError::Unreadable(diagnostics)) => format!("line {}", diagnostics[0].line),
        other => panic!("{other:?}"),
    };
    assert_eq!(message("type Other { a: Int }"), "the schema has no queries and no mutations");
    assert_eq!(message("type Query {\n a: \n}"), "line 3");
    let refused = json!({"errors": [{"message": "introspection is off"}]});
    assert_eq!(message(&refused.to_string()), "the service does not show its schema: introspection is off");
    let deep = format!("type Query {{ a(x: {}Int{}): Int }}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(!message(&deep).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_change_of_a_schema_makes_the_generator_panic(at_byte in any::<prop::sample::Index>(), put in "[a-zA-Z{}()\\[\\]!:=|@\"# ]{0,12}") {
        let mut text = LIBRARY.to_owned();
        let at_byte = at_byte.index(text.len());
        text.insert_str(at_byte, &put);
        match generate::graphql("f", &text, &at("https://h/graphql")) {
            Ok(generated) => _ = loaded(&generated),
            Err(GenerateError::Broken(diagnostics)) => panic!("{diagnostics:?}"),
            Err(_) => {}
        }
    }
}
