//! Tests of the routes that serve the chat page.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use tower::ServiceExt;

use super::*;

async fn request(method: Method, path: &str, known: Option<&str>) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(known) = known {
        request = request.header(header::IF_NONE_MATCH, known);
    }
    routes::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

fn header_of(response: &Response, name: HeaderName) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

async fn body(response: Response) -> Vec<u8> {
    to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
}

#[tokio::test]
async fn the_page_comes_with_its_policy() {
    let response = request(Method::GET, "/", None).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header_of(&response, header::CONTENT_TYPE), HTML);
    let policy = header_of(&response, header::CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header_of(&response, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(body(response).await, INDEX.bytes);
}

#[tokio::test]
async fn every_file_has_its_type_and_a_tag_that_saves_sending_it_again() {
    for asset in &ASSETS {
        let path = format!("/web/{}", asset.name);
        let response = request(Method::GET, &path, None).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(header_of(&response, header::CONTENT_TYPE), asset.content_type, "{path}");
        let tag = header_of(&response, header::ETAG);
        assert_eq!(body(response).await, asset.bytes, "{path}");
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let again = request(Method::GET, &path, Some(&known)).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path} {known}");
            assert_eq!(header_of(&again, header::ETAG), tag);
            assert!(body(again).await.is_empty());
        }
        let changed = request(Method::GET, &path, Some("\"other\"")).await;
        assert_eq!(changed.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn head_has_the_headers_alone() {
    let response = request(Method::HEAD, "/", None).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header_of(&response, header::CONTENT_LENGTH), INDEX.bytes.len().to_string());
    assert!(body(response).await.is_empty());
}

#[tokio::test]
async fn browsers_that_ask_for_an_icon_get_it() {
    let response = request(Method::GET, "/favicon.ico", None).await;
    assert_eq!(header_of(&response, header::CONTENT_TYPE), SVG);
}

#[tokio::test]
async fn other_names_are_not_found() {
    for path in ["/web/none.js", "/web/..%2fmod.rs", "/web/%00", "/web/assets%2fapp.js"] {
        assert_eq!(request(Method::GET, path, None).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(request(Method::POST, "/", None).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

/// The page must work without a network: its files name nothing that lies elsewhere, and no file is forgotten here.
#[test]
fn the_files_refer_to_each_other_only() {
    let known = |name: &str| ASSETS.iter().any(|asset| asset.name == name);
    for asset in ASSETS.iter().filter(|asset| asset.content_type != SVG) {
        let text = std::str::from_utf8(asset.bytes).unwrap();
        for line in text.lines() {
            if let Some(name) = line.split("from \"./").nth(1).and_then(|rest| rest.split('"').next()) {
                assert!(known(name), "{} imports {name}", asset.name);
            }
        }
        for attribute in ["src=\"", "href=\"", "url("] {
            for target in text.split(attribute).skip(1).filter_map(|rest| rest.split(['"', ')']).next()) {
                let file = target.strip_prefix("web/");
                assert!(target.starts_with('#') || file.is_some_and(known), "{}: {target}", asset.name);
            }
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for asset in &ASSETS {
        let lines = asset.bytes.iter().filter(|&&byte| byte == b'\n').count();
        assert!(lines <= 600, "{} has {lines} lines", asset.name);
    }
}
