//! The document and its UI.

use http::{Method, StatusCode};
use serde_json::Value;

use crate::herald::{Herald, answer, draft};

#[test]
fn the_document_is_as_it_was_read_last() {
    insta::assert_snapshot!(herald_http::openapi::json());
}

#[tokio::test]
async fn the_document_is_served_as_it_is_printed() {
    let herald = Herald::start();
    let document = answer(herald.bare(Method::GET, "/openapi.json")).await;
    assert_eq!(document.header("content-type"), "application/json");
    assert_eq!(document.text(), herald_http::openapi::json());
    assert_eq!(document.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn swagger_is_served_from_the_binary_and_asks_no_other_host() {
    let herald = Herald::start();
    let direct = answer(herald.bare(Method::GET, "/swagger")).await;
    assert_eq!((direct.status, direct.header("content-type")), (StatusCode::OK, "text/html"));
    assert!(direct.text().contains(r#"<base href="swagger/">"#));
    let below = answer(herald.bare(Method::GET, "/swagger/")).await;
    assert!(below.text().contains("swagger-ui") && !below.text().contains("<base"));
    let attributes = below.text().split(['"', '\'']);
    let files: Vec<_> =
        attributes.filter(|text| text.ends_with(".js") || text.ends_with(".css")).collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let path = format!("/swagger/{}", file.trim_start_matches("./"));
        assert_eq!(answer(herald.bare(Method::GET, &path)).await.status, StatusCode::OK, "{path}");
    }
    let script = answer(herald.bare(Method::GET, "/swagger/swagger-initializer.js")).await;
    assert!(script.text().contains("/openapi.json") && !script.text().contains("http"));
    let missing = answer(herald.bare(Method::GET, "/swagger/nothing.js")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

/// The fields that a schema of the document names.
fn fields(document: &Value, schema: &str) -> Vec<String> {
    let properties = &document["components"]["schemas"][schema]["properties"];
    let mut names: Vec<_> = properties.as_object().unwrap().keys().cloned().collect();
    names.sort_unstable();
    names
}

fn fields_of(value: &Value) -> Vec<String> {
    let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_documents_schemas_have_the_fields_of_the_wire() {
    let herald = Herald::start();
    let document: Value = serde_json::from_str(&herald_http::openapi::json()).unwrap();
    let appended = herald.append(&[draft(1)]).await;
    assert_eq!(fields(&document, "Appended"), fields_of(&appended[0]));
    let page = herald.poll("HerIds=1&Offset=0").await.notifications();
    assert_eq!(fields(&document, "Notification"), fields_of(&page[0]));
    assert_eq!(fields(&document, "Problem"), fields_of(&herald.poll("").await.json()));
    assert_eq!(fields(&document, "Pong"), fields_of(&herald.get("/ping").await.json()));
    let mut full = page[0].clone();
    let object = full.as_object_mut().unwrap();
    object.remove("offset");
    object.remove("createdAt");
    assert_eq!(fields(&document, "Draft"), fields_of(&full));
}

#[tokio::test]
async fn every_documented_path_answers_and_every_status_of_a_problem_has_its_schema() {
    let herald = Herald::start();
    let document: Value = serde_json::from_str(&herald_http::openapi::json()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let status = answer(herald.bare(method, path)).await.status;
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key(status.as_str()), "{path}: {status}");
            for (status, response) in responses {
                assert!(response["headers"]["x-request-id"].is_object(), "{path} {status}");
                if status.as_str() >= "400" {
                    let content = &response["content"]["application/problem+json"];
                    assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem");
                    assert!(content["examples"].is_object(), "{path} {status}");
                }
            }
        }
    }
}
