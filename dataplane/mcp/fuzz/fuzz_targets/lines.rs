#![no_main]

use libfuzzer_sys::fuzz_target;
use mt_mcp_fuzz::checks;

fuzz_target!(|data: &[u8]| {
    checks::lines_do_not_depend_on_chunks(data);
});
