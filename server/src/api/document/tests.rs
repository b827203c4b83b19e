//! The document against the table of routes, and against the rules of such documents.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::routes::{ROWS, document};
use super::*;

fn written() -> Value {
    serde_json::to_value(document()).unwrap()
}

/// Each operation with its method and path.
fn operations(document: &Value) -> BTreeMap<(String, String), Value> {
    let paths = document["paths"].as_object().unwrap().iter();
    let one = |(path, item): (&String, &Value)| {
        let item = item.as_object().unwrap().clone();
        let path = path.clone();
        item.into_iter().map(move |(method, operation)| ((method, path.clone()), operation))
    };
    paths.flat_map(one).collect()
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let routes: BTreeSet<_> = ROWS.iter().map(|row| (row.method.to_owned(), row.path.to_owned())).collect();
    let described: BTreeSet<_> = operations(&written()).into_keys().collect();
    let one_sided: Vec<_> = routes.symmetric_difference(&described).collect();
    assert!(one_sided.is_empty(), "in the table or in an attribute only: {one_sided:?}");
    assert_eq!(routes.len(), ROWS.len());
}

#[test]
fn every_operation_says_what_it_does_needs_and_answers() {
    let document = written();
    let mut names = BTreeSet::new();
    for ((method, path), operation) in operations(&document) {
        let what = format!("{method} {path}");
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!(summary.len() > 5 && summary.ends_with('.'), "{what}: its summary is `{summary}`");
        assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}: a name twice");
        let need = ROWS.iter().find(|row| row.method == method && row.path == path).unwrap().need;
        assert_eq!(operation["x-role"], need.role.name(), "{what}");
        assert_eq!(operation["x-scope"] == "everything", !need.scoped, "{what}");
        assert!(operation["security"][0]["token"].is_array(), "{what}");
        let answers = operation["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2')), "{what} has no success");
        for (status, answer) in answers.iter().filter(|(status, _)| !status.starts_with('2')) {
            let schema = &answer["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{what} {status}");
        }
        for status in ["400", "401", "403", "500", "503"] {
            assert!(answers.contains_key(status), "{what} {status}");
        }
        for name in path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()) {
            let parameters = operation["parameters"].as_array().unwrap();
            assert!(
                parameters.iter().any(|one| one["in"] == "path" && one["name"] == name),
                "{what}: {name}"
            );
        }
        for one in operation["parameters"].as_array().into_iter().flatten() {
            assert!(one["description"].as_str().is_some_and(|words| words.len() > 5), "{what}: {one}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_shape_is_a_schema() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = written();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for target in &found {
        let place = target.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        assert!(place.is_some(), "{target} is not there");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        jsonschema::meta::validate(schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_page_names_every_operation_and_needs_nothing_from_elsewhere() {
    let document = written();
    let page = page::html(&document);
    for operation in operations(&document).values() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for link in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{link}\"")), "{link} leads nowhere");
    }
    let far = page.replace("https://SERVER:8470", "");
    for word in ["<script", "http://", "https://", "style=\"", "src="] {
        assert!(!far.contains(word), "{word}");
    }
    assert!(page.len() < 160 << 10, "{} bytes", page.len());
}
