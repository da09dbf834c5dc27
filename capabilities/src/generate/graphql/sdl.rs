//! A schema from GraphQL's own language.

use apollo_parser::{
    Parser,
    cst::{self, CstNode as _, Definition},
};

use super::model::{Field, InputValue, KIND_DEPTH_MAX, Kind, Schema, Shape, TYPES_MAX, Type, is_name};
use crate::{
    generate::{GenerateError, unusable},
    source::Source,
};

/// Values and types in each other.
const DEPTH_MAX: usize = 64;
const TOKENS_MAX: usize = 4_000_000;
const ERRORS_MAX: usize = 20;

pub fn read(text: &str) -> Result<Schema, GenerateError> {
    let tree = Parser::new(text).recursion_limit(DEPTH_MAX).token_limit(TOKENS_MAX).parse();
    let source = Source::new("schema", text);
    let found = tree.errors().take(ERRORS_MAX).map(|error| {
        let at = error.index().min(text.len());
        source.diagnostic(&(at..at), "", error.message().to_owned(), None)
    });
    let found: Vec<_> = found.collect();
    if !found.is_empty() {
        return Err(GenerateError::Unreadable(found));
    }
    let mut schema = Schema::default();
    let (mut roots, mut definitions) = (false, 0);
    for definition in tree.document().definitions() {
        definitions += 1;
        if definitions > TYPES_MAX {
            return Err(unusable(format!("the schema has more than {TYPES_MAX} types"), "take some out"));
        }
        roots |= define(&mut schema, &definition);
    }
    if !roots {
        let default = |name: &str| schema.types.contains_key(name).then(|| name.to_owned());
        (schema.query, schema.mutation, schema.subscription) =
            (default("Query"), default("Mutation"), default("Subscription"));
    }
    Ok(schema)
}

/// Takes a definition; true if it says which types the roots are.
fn define(schema: &mut Schema, definition: &Definition) -> bool {
    let named =
        |name: Option<cst::Name>| name.map(|name| name.text().to_string()).filter(|name| is_name(name));
    match definition {
        Definition::SchemaDefinition(it) => {
            it.root_operation_type_definitions().for_each(|root| set_root(schema, &root));
            return true;
        }
        Definition::SchemaExtension(it) => {
            it.root_operation_type_definitions().for_each(|root| set_root(schema, &root));
        }
        Definition::ObjectTypeDefinition(it) => {
            add(schema, named(it.name()), Shape::Object(fields(it.fields_definition())))
        }
        Definition::ObjectTypeExtension(it) => {
            add(schema, named(it.name()), Shape::Object(fields(it.fields_definition())))
        }
        Definition::InterfaceTypeDefinition(it) => {
            add(schema, named(it.name()), Shape::Object(fields(it.fields_definition())));
        }
        Definition::InterfaceTypeExtension(it) => {
            add(schema, named(it.name()), Shape::Object(fields(it.fields_definition())));
        }
        Definition::InputObjectTypeDefinition(it) => {
            let values = it.input_fields_definition().map(|all| inputs(all.input_value_definitions()));
            add(schema, named(it.name()), Shape::Input(values.unwrap_or_default()));
        }
        Definition::InputObjectTypeExtension(it) => {
            let values = it.input_fields_definition().map(|all| inputs(all.input_value_definitions()));
            add(schema, named(it.name()), Shape::Input(values.unwrap_or_default()));
        }
        Definition::EnumTypeDefinition(it) => {
            add(schema, named(it.name()), Shape::Enum(values(it.enum_values_definition())))
        }
        Definition::EnumTypeExtension(it) => {
            add(schema, named(it.name()), Shape::Enum(values(it.enum_values_definition())))
        }
        Definition::UnionTypeDefinition(it) => {
            add(schema, named(it.name()), Shape::Union(members(it.union_member_types())))
        }
        Definition::UnionTypeExtension(it) => {
            add(schema, named(it.name()), Shape::Union(members(it.union_member_types())))
        }
        Definition::ScalarTypeDefinition(it) => add(schema, named(it.name()), Shape::Scalar),
        _ => {}
    }
    false
}

fn set_root(schema: &mut Schema, root: &cst::RootOperationTypeDefinition) {
    let name = root.named_type().and_then(|kind| kind.name()).map(|name| name.text().to_string());
    let Some(operation) = root.operation_type() else { return };
    if operation.query_token().is_some() {
        schema.query = name;
    } else if operation.mutation_token().is_some() {
        schema.mutation = name;
    } else {
        schema.subscription = name;
    }
}

/// A type, or more of one that is there.
fn add(schema: &mut Schema, name: Option<String>, shape: Shape) {
    let Some(name) = name else { return };
    match (schema.types.get_mut(&name).map(|known| &mut known.shape), shape) {
        (Some(Shape::Object(known)), Shape::Object(more)) => known.extend(more),
        (Some(Shape::Input(known)), Shape::Input(more)) => known.extend(more),
        (Some(Shape::Enum(known)), Shape::Enum(more)) => known.extend(more),
        (Some(Shape::Union(known)), Shape::Union(more)) => known.extend(more),
        (_, shape) => _ = schema.types.insert(name, Type { shape }),
    }
}

fn fields(definition: Option<cst::FieldsDefinition>) -> Vec<Field> {
    let all = definition.into_iter().flat_map(|all| all.field_definitions());
    let field = |it: cst::FieldDefinition| {
        let arguments = it.arguments_definition().map(|all| inputs(all.input_value_definitions()));
        Some(Field {
            name: name(it.name())?,
            description: description(it.description()),
            arguments: arguments.unwrap_or_default(),
            kind: kind(it.ty()?, 0)?,
            deprecated: deprecated(it.directives()),
        })
    };
    all.filter_map(field).collect()
}

fn inputs(all: impl Iterator<Item = cst::InputValueDefinition>) -> Vec<InputValue> {
    let value = |it: cst::InputValueDefinition| {
        Some(InputValue {
            name: name(it.name())?,
            description: description(it.description()),
            kind: kind(it.ty()?, 0)?,
            has_default: it.default_value().is_some(),
        })
    };
    all.filter_map(value).collect()
}

fn values(definition: Option<cst::EnumValuesDefinition>) -> Vec<String> {
    let all = definition.into_iter().flat_map(|all| all.enum_value_definitions());
    all.filter_map(|value| name(value.enum_value()?.name())).collect()
}

fn members(members: Option<cst::UnionMemberTypes>) -> Vec<String> {
    let all = members.into_iter().flat_map(|all| all.named_types());
    all.filter_map(|kind| name(kind.name())).collect()
}

fn name(name: Option<cst::Name>) -> Option<String> {
    name.map(|name| name.text().to_string()).filter(|name| is_name(name))
}

fn deprecated(directives: Option<cst::Directives>) -> bool {
    let mut all = directives.into_iter().flat_map(|all| all.directives());
    all.any(|directive| directive.name().is_some_and(|name| name.text().as_str() == "deprecated"))
}

fn kind(ty: cst::Type, depth: usize) -> Option<Kind> {
    if depth > KIND_DEPTH_MAX {
        return None;
    }
    let list = |list: cst::ListType| kind(list.ty()?, depth + 1).map(Box::new).map(Kind::List);
    match ty {
        cst::Type::NamedType(named) => name(named.name()).map(Kind::Named),
        cst::Type::ListType(it) => list(it),
        cst::Type::NonNullType(it) => {
            let inner = match (it.named_type(), it.list_type()) {
                (Some(named), _) => name(named.name()).map(Kind::Named),
                (None, it) => list(it?),
            };
            inner.map(Box::new).map(Kind::Required)
        }
    }
}

/// The text between the quotes. Of the few escapes that there are, only the
/// usual ones are undone.
fn description(description: Option<cst::Description>) -> String {
    let Some(text) = description.and_then(|it| it.string_value()).map(|it| it.syntax().text().to_string())
    else {
        return String::new();
    };
    let text = text.trim();
    if let Some(block) = text.strip_prefix("\"\"\"").and_then(|text| text.strip_suffix("\"\"\"")) {
        let lines: Vec<&str> = block.lines().map(str::trim).collect();
        return lines.join("\n").trim().replace("\\\"\"\"", "\"\"\"");
    }
    serde_json::from_str(text).unwrap_or_else(|_| text.trim_matches('"').to_owned())
}
