#![no_main]

use libfuzzer_sys::fuzz_target;
use mt_mcp_fuzz::checks;

fuzz_target!(|data: &[u8]| {
    checks::messages_say_what_they_say(data);
});
