//! Any bytes as an operator's archive, and as one section of a state.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::archive;
use muster::store::StateBuilder;

fuzz_target!(|bytes: &[u8]| {
    let mut builder = StateBuilder::new();
    let read = archive::read(bytes, &mut |section| {
        builder.section(section.kind, section.version, &section.bytes).map_err(|why| why.to_string())
    });
    if read.is_ok() {
        let _ = builder.finish();
    }
    if let [kind, rest @ ..] = bytes {
        let mut builder = StateBuilder::new();
        if builder.section(u16::from(*kind), 1, rest).is_ok()
            && let Ok(state) = builder.finish()
        {
            // What was taken can be written again, and is the same then.
            let mut again = StateBuilder::new();
            for section in state.sections() {
                again.section(section.kind, section.version, &section.bytes).expect("our own sections");
            }
            assert_eq!(again.finish().expect("our own sections").fingerprint(), state.fingerprint());
        }
    }
});
