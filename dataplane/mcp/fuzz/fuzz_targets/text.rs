#![no_main]

use libfuzzer_sys::fuzz_target;
use mt_mcp_fuzz::checks;

fuzz_target!(|data: &[u8]| {
    checks::texts_come_back(data);
    checks::headers_agree_with_one_body(data);
});
