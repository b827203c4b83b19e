//! How names and texts of this crate appear in the document of the admin's API: what serde writes as a string by code of
//! ours, no derive can describe. Touches the modules of those types.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::hooks::RootRule;
use crate::id::{DeploymentId, Hash, ImageId, JobId, Mac, MachineId};
use crate::step::Step;
use crate::trust::PublicKey;
use crate::user_data::UserData;

/// Describes types that are strings, each of a pattern.
macro_rules! texts {
    ($($kind:ty, $pattern:literal, $words:literal;)+) => {
        $(
            impl PartialSchema for $kind {
                fn schema() -> RefOr<Schema> {
                    text($words).pattern(Some($pattern)).into()
                }
            }

            impl ToSchema for $kind {}
        )+
    };
}

fn text(words: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).description(Some(words))
}

texts! {
    MachineId, "^m[0-9]{1,19}$", "A machine, as the server numbers it: `m7`.";
    DeploymentId, "^d[0-9]{1,19}$", "A deployment, as the server numbers it: `d3`.";
    JobId, "^j[0-9]{1,19}$", "A job, as the server numbers it: `j12`.";
    Hash, "^[0-9a-f]{64}$", "A BLAKE3 hash.";
    ImageId, "^[0-9a-f]{64}$", "An image, named by the BLAKE3 hash of its manifest.";
    Mac, "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$", "An Ethernet address.";
    PublicKey, "^ed25519:[0-9a-f]{64}$", "The public half of a key.";
    RootRule, "^(auto|[1-9][0-9]{0,8}|label=.{1,64})$", "Which partition is the root: `auto`, a number, or `label=NAME`.";
}

impl PartialSchema for Step {
    // No list of words: a machine of a later version has further steps.
    fn schema() -> RefOr<Schema> {
        let names = Self::ALL.map(|step| step.to_string()).join("`, `");
        text(&format!("A unit of a job. This version knows `{names}`.")).into()
    }
}

impl ToSchema for Step {}

impl PartialSchema for UserData {
    fn schema() -> RefOr<Schema> {
        let encoded = ObjectBuilder::new()
            .property("base64", text("The bytes in base64.").content_encoding("base64"))
            .required("base64");
        OneOfBuilder::new()
            .description(Some("A text, or bytes that are none in base64."))
            .item(text("A text."))
            .item(encoded)
            .into()
    }
}

impl ToSchema for UserData {}
