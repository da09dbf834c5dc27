#![no_main]

use libfuzzer_sys::fuzz_target;
use mt_mcp_fuzz::checks;

fuzz_target!(|data: &[u8]| {
    checks::the_same_texts_are_json(data);
    checks::members_are_where_they_are(data);
    checks::spliced_values_stay_as_they_are(data);
});
