//! `GET /mcp/tools`: what can be called.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::value::RawValue;

use super::{Failure, Query, decoded};
use crate::{
    downstream::{
        body::Body,
        door::Door,
        plain::{Talk, Wish},
        reply,
    },
    gateway::kind::ListKind,
    mcp::{Era, Method, RpcError, splice::Object},
};

/// The longest text to look for.
const SOUGHT_BYTES_MAX: usize = 256;

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Sought {
    name: String,
    title: String,
    description: String,
}

/// A page; with `?q=` only tools in whose name, title or description that text
/// is, in upper or lower case. A page of these may be longer than others, for
/// it is as many whole pages of the list as it takes to find enough.
pub async fn list(door: Door, query: &Query) -> Result<Response<Body>, Failure> {
    let sought = query.get("q").filter(|text| !text.is_empty()).map(str::to_lowercase);
    if sought.as_ref().is_some_and(|text| text.len() > SOUGHT_BYTES_MAX) {
        let why = format!("q is longer than {SOUGHT_BYTES_MAX} bytes");
        return Err(Failure::of(&RpcError::invalid_params(why)));
    }
    let enough = door.view.gateway.page_size;
    let mut cursor = query.get("cursor").map(str::to_owned);
    let (mut found, mut count) = (Vec::new(), 0);
    loop {
        let wish = Wish::page(Method::ToolsList, cursor.as_deref());
        let result = Talk::start(door.clone(), wish)?.end().await?;
        let page: Page<'_> =
            serde_json::from_slice(&result).map_err(|_| Failure::of(&RpcError::internal()))?;
        for tool in page.tools.iter().filter(|tool| matches(tool, sought.as_deref())) {
            if count > 0 {
                found.push(b',');
            }
            found.extend_from_slice(tool.get().as_bytes());
            count += 1;
        }
        cursor = page.next_cursor;
        if sought.is_none() || cursor.is_none() || count >= enough {
            break;
        }
    }
    let tools = [&b"["[..], &found, b"]"].concat();
    let mut object = Object::default().set("tools", &tools[..]);
    if let Some(cursor) = cursor {
        object = object.set_text("nextCursor", &cursor);
    }
    Ok(reply::json(StatusCode::OK, object.finish()))
}

fn matches(tool: &RawValue, sought: Option<&str>) -> bool {
    let Some(text) = sought else { return true };
    let tool: Sought = serde_json::from_str(tool.get()).unwrap_or_default();
    [tool.name, tool.title, tool.description].iter().any(|field| field.to_lowercase().contains(text))
}

/// One tool that is listed. One that is hidden can be called, and is not shown.
pub fn one(door: &Door, name: &str) -> Result<Response<Body>, Failure> {
    let name = decoded(name)?;
    let list = door.view.list_in(Era::Modern, ListKind::Tools);
    let found = list.pages.iter().find_map(|page| find(page, &name));
    match found {
        Some(tool) => Ok(reply::json(StatusCode::OK, tool)),
        None => Err(Failure::not_found(&RpcError::unknown_tool(&name))),
    }
}

fn find(page: &Bytes, name: &str) -> Option<Bytes> {
    let tools: Vec<&RawValue> = serde_json::from_slice(page).ok()?;
    let named =
        |tool: &&&RawValue| serde_json::from_str::<Sought>(tool.get()).is_ok_and(|tool| tool.name == name);
    tools.iter().find(named).map(|tool| Bytes::copy_from_slice(tool.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_name_title_and_description() {
        let tool: Box<RawValue> =
            serde_json::from_str(r#"{"name":"ping_host","title":"Ping","description":"Größe of it"}"#)
                .unwrap();
        for text in ["host", "ping", "größe"] {
            assert!(matches(&tool, Some(text)), "{text}");
        }
        assert!(matches(&tool, None) && !matches(&tool, Some("pong")));
    }
}
