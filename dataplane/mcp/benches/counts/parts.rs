//! The parts that are counted, each with the message it works on.
//!
//! Messages are made here from a few constants; nothing is read from a file, so
//! the counts depend on nothing but the code.

use std::hint::black_box;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use mt_mcp::meta::Meta;
use mt_mcp::scan::Limits;
use mt_mcp::{Message, Method, Outcome, Params, RawId, headers, lines, splice, sse};

/// Carries out a part so often.
type Run = Box<dyn Fn(u64)>;

/// Something the codec does to one message.
pub struct Part {
    pub name: &'static str,
    /// Bytes it works on; 0 if a figure per byte would say nothing.
    pub bytes: usize,
    /// Makes the message.
    pub prepare: Box<dyn Fn() -> Run>,
}

const KIB: usize = 1 << 10;
/// Events and lines in one go.
const FRAMES: usize = 1000;

const LEGACY: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"weather_lookup","arguments":{"city":"Lisbon","days":3}}}"#;

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"example-client","version":"1.4.2"},"io.modelcontextprotocol/clientCapabilities":{"elicitation":{},"sampling":{}},"progressToken":"call-7","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#;

const RESULT: &str =
    r#"{"content":[{"type":"text","text":"Sunny, 24 degrees, light wind from the west."}],"isError":false}"#;

fn modern() -> String {
    LEGACY.replace("\"arguments\"", &format!("\"_meta\":{META},\"arguments\""))
}

/// A call whose one argument is `value`.
fn call(value: &str) -> String {
    LEGACY.replace(r#""Lisbon""#, value)
}

/// A response with one text.
fn response(text: &str) -> String {
    let result = RESULT.replace("\"Sunny, 24 degrees, light wind from the west.\"", text);
    format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#)
}

/// A string of about so many bytes, of repeated `text`.
fn string(text: &str, bytes: usize) -> String {
    format!("\"{}\"", text.repeat(bytes / text.len()))
}

/// What a source file looks like as JSON: an escape each few dozen bytes.
const SOURCE: &str = r#"    let total = items.iter().sum();\n    println!(\"{total}\");\n"#;

/// An array of about so many bytes, of small objects.
fn objects(bytes: usize) -> String {
    let object = r#"{"id":12345,"name":"abcdef"}"#;
    let mut array = format!("{object},").repeat(bytes / (object.len() + 1));
    array.pop();
    format!("[{array}]")
}

fn numbers(bytes: usize) -> String {
    let mut array = "1234.5678,".repeat(bytes / 10);
    array.pop();
    format!("[{array}]")
}

/// Indented by two spaces a level, as many servers write.
fn pretty(bytes: usize) -> String {
    let object = "      {\n        \"id\": 12345,\n        \"name\": \"abcdef\"\n      },\n";
    let mut array = object.repeat(bytes / object.len());
    array.truncate(array.len() - 2);
    format!("[\n{array}\n    ]")
}

/// Reads a whole message again and again.
fn parse(name: &'static str, text: impl Fn() -> String + 'static, limits: Limits) -> Part {
    let bytes = text().len();
    let prepare = move || -> Run {
        let message = Bytes::from(text());
        Box::new(move |times| {
            for _ in 0..times {
                black_box(Message::parse(black_box(message.clone()), limits).expect("a message"));
            }
        })
    };
    Part { name, bytes, prepare: Box::new(prepare) }
}

/// Repeats something that needs to be prepared.
fn repeat<P: 'static, R>(
    name: &'static str,
    bytes: usize,
    prepare: impl Fn() -> P + 'static,
    run: impl Fn(&P) -> R + Copy + 'static,
) -> Part {
    let prepare = move || -> Run {
        let prepared = prepare();
        Box::new(move |times| {
            for _ in 0..times {
                black_box(run(black_box(&prepared)));
            }
        })
    };
    Part { name, bytes, prepare: Box::new(prepare) }
}

fn request(text: &str) -> (RawId, Method, Params) {
    let message = Message::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::CLIENT);
    let Ok(Message::Request(request)) = message else { unreachable!("a request") };
    (request.id, request.method, request.params)
}

fn outcome(text: &str) -> Bytes {
    let message = Message::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::BACKEND);
    let Ok(Message::Response(response)) = message else { unreachable!("a response") };
    let (Outcome::Result(result) | Outcome::Error(result)) = response.outcome;
    result
}

fn modern_headers() -> HeaderMap {
    let mut map = HeaderMap::new();
    headers::write(&mut map, "2026-07-28", &Method::ToolsCall, Some("weather_lookup"));
    map.insert("content-type", HeaderValue::from_static("application/json"));
    map.insert("accept", headers::ACCEPT_BOTH);
    map
}

fn events() -> Bytes {
    let mut wire = Vec::new();
    for at in 0..FRAMES {
        let id = at.to_string();
        sse::encode_event(Some("message"), Some(&id), RESULT.as_bytes(), &mut wire);
    }
    wire.into()
}

/// Every part, in the order of the table.
pub fn all() -> Vec<Part> {
    let text = |of: &'static str, bytes| move || call(&string(of, bytes));
    vec![
        parse("parse_call", || LEGACY.into(), Limits::CLIENT),
        parse("parse_call_modern", modern, Limits::CLIENT),
        parse("parse_call_text_64k", text("lorem ipsum dolor ", 64 * KIB), Limits::CLIENT),
        parse("parse_call_source_64k", text(SOURCE, 64 * KIB), Limits::CLIENT),
        parse("parse_call_accents_64k", text("där ist's schön, ", 64 * KIB), Limits::CLIENT),
        parse("parse_call_japanese_64k", text("日本語の文章です。", 64 * KIB), Limits::CLIENT),
        parse("parse_call_objects_64k", || call(&objects(64 * KIB)), Limits::CLIENT),
        parse("parse_call_numbers_64k", || call(&numbers(64 * KIB)), Limits::CLIENT),
        parse("parse_call_pretty_64k", || call(&pretty(64 * KIB)), Limits::CLIENT),
        parse("parse_call_text_1m", text("lorem ipsum dolor ", KIB * KIB), Limits::CLIENT),
        parse("parse_call_objects_1m", || call(&objects(KIB * KIB)), Limits::CLIENT),
        parse("parse_response", || response("\"Sunny\""), Limits::BACKEND),
        parse("parse_response_text_64k", || response(&string("lorem ipsum ", 64 * KIB)), Limits::BACKEND),
        repeat(
            "meta_modern",
            META.len(),
            || request(&modern()),
            |(_, _, params)| Meta::of(params).and_then(|meta| meta.modern()).expect("modern"),
        ),
        repeat(
            "headers_check",
            0,
            || (modern_headers(), request(LEGACY)),
            |(map, (_, method, params))| {
                headers::check(map, "2026-07-28", method, params).expect("they agree");
                (headers::accepts(map), headers::is_json(map))
            },
        ),
        repeat(
            "patch_name",
            0,
            || request(LEGACY),
            |(id, method, params)| {
                splice::request(id, method, Some(&params.patch().set_text("name", "lookup")))
            },
        ),
        repeat(
            "patch_meta",
            0,
            || request(&modern()),
            |(id, method, params)| {
                let token = Bytes::from_static(b"\"9\"");
                let patch = params.patch().set_text("name", "lookup").set_in("_meta", "progressToken", token);
                splice::request(id, method, Some(&patch))
            },
        ),
        repeat(
            "splice_response",
            0,
            || outcome(&response("\"Sunny\"")),
            |result| splice::response(&RawId::number(7), result),
        ),
        repeat(
            "splice_response_64k",
            64 * KIB,
            || outcome(&response(&string("lorem ipsum ", 64 * KIB))),
            |result| splice::response(&RawId::number(7), result),
        ),
        repeat("sse_decode_1000", events().len(), events, |wire| {
            let mut decoder = sse::Decoder::new(KIB * KIB);
            decoder.push(wire.clone());
            let mut seen = 0;
            while let Ok(Some(event)) = decoder.next_event() {
                seen += black_box(&event).data.as_ref().map_or(0, Bytes::len);
            }
            seen
        }),
        repeat(
            "sse_encode_1000",
            events().len(),
            || "1234",
            |id| {
                let mut wire = Vec::new();
                for _ in 0..FRAMES {
                    wire.clear();
                    sse::encode(Some(id), RESULT.as_bytes(), &mut wire);
                }
                wire
            },
        ),
        repeat(
            "lines_1000",
            FRAMES * (RESULT.len() + 1),
            || Bytes::from(format!("{RESULT}\n").repeat(FRAMES)),
            |wire| {
                let mut framer = lines::Framer::new(KIB * KIB);
                framer.push(wire.clone());
                std::iter::from_fn(|| framer.next_line()).count()
            },
        ),
    ]
}
