//! Fuzzes the bodies of `/v1/report`, `/v1/wait` and `/v1/events`: signed ones as they come, and the text under a
//! signature.
#![no_main]

use libfuzzer_sys::fuzz_target;

use common::hardware::{CheckedHardware, HardwareReport, SentReport};
use common::step::EventBatch;
use common::trust::Signed;
use common::wire::http::WaitRequest;

fuzz_target!(|body: &[u8]| {
    if let Ok(signed) = serde_json::from_slice::<Signed<SentReport>>(body) {
        let _ = signed.open_self_signed(|sent| sent.hardware.key);
    }
    if let Ok(signed) = serde_json::from_slice::<Signed<EventBatch>>(body) {
        let _ = signed.open_self_signed(|batch| batch.key);
    }
    if let Ok(signed) = serde_json::from_slice::<Signed<WaitRequest>>(body) {
        let _ = signed.open_self_signed(|request| request.key);
    }
    let _ = serde_json::from_slice::<EventBatch>(body);
    if let Ok(report) = serde_json::from_slice::<HardwareReport>(body)
        && let Ok(checked) = CheckedHardware::check(report)
    {
        let _ = checked.shortened(64 << 10);
        // A report that was accepted once has to be accepted again: records are read so.
        assert!(CheckedHardware::check(checked.report().clone()).is_ok());
    }
});
