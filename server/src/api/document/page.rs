//! Core: the document of the API as one page of HTML, without scripts: every operation with what it needs, takes and answers
//! with, and every shape. Whatever the document says is shown as text. Touches nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::docs::escaped;

/// The page of `document`.
pub(super) fn html(document: &Value) -> String {
    let mut main = String::new();
    let prefix = document["servers"][0]["url"].as_str().unwrap_or_default();
    let mut groups: BTreeMap<&str, Vec<(&str, &str, &Value)>> = BTreeMap::new();
    for (path, item) in fields(&document["paths"]) {
        for (method, operation) in fields(item).filter(|(_, value)| value.is_object()) {
            let group = operation["tags"][0].as_str().unwrap_or("other");
            groups.entry(group).or_default().push((path, method, operation));
        }
    }
    let _ = write!(main, "<h1>The API</h1>\n<p>{}</p>\n", prose(&document["info"]["description"]));
    let _ = writeln!(
        main,
        "<p>For programs: <a href=\"{0}/openapi.json\">{0}/openapi.json</a> (OpenAPI {1}). For people: \
         <a href=\"/docs\">the manual</a>.</p>\n<pre>curl --cacert server.pem -H \"Authorization: Bearer $TOKEN\" \
         https://SERVER:8470{0}/status</pre>",
        escaped(prefix),
        escaped(document["openapi"].as_str().unwrap_or_default())
    );
    for (group, operations) in &groups {
        let _ = writeln!(main, "<h2 id=\"{0}\">{0}</h2>", escaped(group));
        for (path, method, operation) in operations {
            one(&mut main, prefix, path, method, operation);
        }
    }
    main.push_str("<h2 id=\"shapes\">Shapes</h2>\n");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        let _ = writeln!(
            main,
            "<h3 id=\"shape-{0}\">{0}</h3>\n<p>{1}</p>",
            escaped(name),
            prose(&schema["description"])
        );
        shape(&mut main, schema);
    }
    let mut list = String::new();
    for group in groups.keys().copied().chain(["shapes"]) {
        let _ = writeln!(list, "<li><a href=\"#{0}\">{0}</a></li>", escaped(group));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>API – swarmboot</title>\n\
         <link rel=\"stylesheet\" href=\"/docs/style.css\">\n</head>\n<body>\n\
         <nav aria-label=\"Parts of the API\">\n<ul>\n{list}</ul>\n</nav>\n<main>\n{main}</main>\n</body>\n</html>\n"
    )
}

/// One operation: its line, what it needs, its parameters, its body and its answers.
fn one(out: &mut String, prefix: &str, path: &str, method: &str, operation: &Value) {
    let id = operation["operationId"].as_str().unwrap_or_default();
    let _ = writeln!(
        out,
        "<h3 id=\"{}\">{}</h3>\n<p><code>{} {}{}</code></p>\n<p>{} Needs the role <strong>{}</strong>{}.</p>",
        escaped(id),
        prose(&operation["summary"]),
        escaped(&method.to_uppercase()),
        escaped(prefix),
        escaped(path),
        prose(&operation["description"]),
        prose(&operation["x-role"]),
        if operation["x-scope"] == "everything" { ", for everything" } else { "" },
    );
    let mut rows = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let place = parameter["in"].as_str().unwrap_or_default();
        row(&mut rows, place, &parameter["name"], &kind(&parameter["schema"]), &parameter["description"]);
    }
    for (media, content) in fields(&operation["requestBody"]["content"]) {
        let words = &operation["requestBody"]["description"];
        row(&mut rows, "body", &media.into(), &kind(&content["schema"]), words);
    }
    let mut problems = vec![];
    for (status, answer) in fields(&operation["responses"]) {
        let mut contents = fields(&answer["content"]).peekable();
        if contents.peek().is_none() {
            row(&mut rows, status, &Value::Null, "", &answer["description"]);
        }
        for (media, content) in contents {
            if media == "application/problem+json" {
                problems.push(status);
            } else {
                row(&mut rows, status, &media.into(), &kind(&content["schema"]), &answer["description"]);
            }
        }
    }
    let errors = "An error, as <a href=\"#shape-Problem\">Problem</a>";
    let _ = writeln!(
        out,
        "<table>\n<tr><th>where</th><th>what</th><th>kind</th><th></th></tr>\n{rows}\
         <tr><td>{}</td><td>application/problem+json</td><td></td><td>{errors}</td></tr>\n</table>",
        escaped(&problems.join(", "))
    );
}

fn row(out: &mut String, place: &str, name: &Value, kind: &str, words: &Value) {
    let name = escaped(name.as_str().unwrap_or_default());
    let _ = writeln!(
        out,
        "<tr><td>{}</td><td>{name}</td><td>{kind}</td><td>{}</td></tr>",
        escaped(place),
        prose(words)
    );
}

/// A shape: its fields, or its alternatives.
fn shape(out: &mut String, schema: &Value) {
    let parts = ["oneOf", "anyOf", "allOf"].iter().filter_map(|of| schema[*of].as_array());
    let parts: Vec<&Value> = parts.flatten().collect();
    if schema["properties"].is_object() {
        table(out, schema);
    } else if parts.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", kind(schema));
    } else {
        out.push_str(if schema["allOf"].is_array() {
            "<p>All of:</p>\n<ul>\n"
        } else {
            "<p>One of:</p>\n<ul>\n"
        });
        for part in parts {
            let _ = write!(out, "<li>");
            if part["properties"].is_object() {
                let _ = writeln!(out, "{}", prose(&part["description"]));
                table(out, part);
            } else {
                let _ = write!(out, "{} {}", kind(part), prose(&part["description"]));
            }
            out.push_str("</li>\n");
        }
        out.push_str("</ul>\n");
    }
}

fn table(out: &mut String, schema: &Value) {
    let needed: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    out.push_str("<table>\n<tr><th>field</th><th>kind</th><th></th></tr>\n");
    for (name, field) in fields(&schema["properties"]) {
        let may = if needed.contains(&name) { "" } else { " (may be left out)" };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}{may}</td><td>{}</td></tr>",
            escaped(name),
            kind(field),
            prose(&field["description"])
        );
    }
    out.push_str("</table>\n");
}

/// The kind of a value in a few words, with links to shapes.
fn kind(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = escaped(target.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#shape-{name}\">{name}</a>");
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> =
            words.iter().map(|word| format!("<code>{}</code>", escaped(&plain(word)))).collect();
        return words.join(", ");
    }
    for (of, between) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " with ")] {
        if let Some(parts) = schema[of].as_array() {
            return parts.iter().map(kind).collect::<Vec<_>>().join(between);
        }
    }
    if let Some(items) = schema["prefixItems"].as_array() {
        return format!("({})", items.iter().map(kind).collect::<Vec<_>>().join(", "));
    }
    if schema["properties"].is_object() {
        let names =
            fields(&schema["properties"]).map(|(name, field)| format!("{}: {}", escaped(name), kind(field)));
        return format!("{{{}}}", names.collect::<Vec<_>>().join(", "));
    }
    if schema["type"] == "array" {
        return format!("list of {}", kind(&schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        return format!("map of {}", kind(&schema["additionalProperties"]));
    }
    match &schema["type"] {
        Value::Array(kinds) => escaped(&kinds.iter().map(plain).collect::<Vec<_>>().join(" or ")),
        kind => escaped(&plain(kind)),
    }
}

/// A JSON value as a word.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// A description as HTML: what stands between backticks is code.
fn prose(value: &Value) -> String {
    let parts = value.as_str().unwrap_or_default().split('`').enumerate();
    let as_html = |(at, part): (usize, &str)| {
        if at % 2 == 1 { format!("<code>{}</code>", escaped(part)) } else { escaped(part) }
    };
    parts.map(as_html).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_document_says_is_text() {
        let evil = "<script>alert(\"1\")</script>";
        let operation = serde_json::json!({
            "operationId": evil, "summary": evil, "description": format!("`{evil}`"), "tags": [evil], "x-role": evil,
            "parameters": [{"in": evil, "name": evil, "schema": {"type": evil}, "description": evil}],
            "responses": {"200": {"description": evil, "content": {"a": {"schema": {"enum": [evil, 1, null]}}}}},
        });
        let shape =
            serde_json::json!({"description": evil, "properties": {evil: {"$ref": format!("#/x/{evil}")}}});
        let document = serde_json::json!({
            "openapi": "3.1.0", "info": {"description": evil}, "servers": [{"url": evil}],
            "paths": {evil: {"get": operation}}, "components": {"schemas": {evil: shape}},
        });
        let page = html(&document);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn a_kind_is_said_in_a_few_words() {
        let table = [
            (serde_json::json!({"$ref": "#/components/schemas/Role"}), "<a href=\"#shape-Role\">Role</a>"),
            (serde_json::json!({"type": ["string", "null"]}), "string or null"),
            (serde_json::json!({"type": "array", "items": {"type": "integer"}}), "list of integer"),
            (
                serde_json::json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "map of string",
            ),
            (serde_json::json!({"oneOf": [{"type": "null"}, {"type": "string"}]}), "null or string"),
            (serde_json::json!({"enum": ["a", null]}), "<code>a</code>, <code>null</code>"),
            (
                serde_json::json!({"prefixItems": [{"type": "integer"}, {"type": "string"}]}),
                "(integer, string)",
            ),
        ];
        for (schema, words) in table {
            assert_eq!(kind(&schema), words);
        }
    }
}
