//! How proto3 JSON writes what serde would write otherwise: bytes as base64, 64-bit integers as strings,
//! enums by name, zero values not at all.

use serde::{Deserialize, Deserializer};

/// True for a zero value, which proto3 JSON leaves out.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What proto3 JSON accepts for an integer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Signed(i64),
    Text(String),
}

/// 64-bit integers: written as a string, read from a string or a number.
pub(crate) mod int64 {
    use super::{Deserialize, Deserializer, Number};
    use serde::Serializer;
    use serde::de::Error;

    pub(crate) fn serialize<S: Serializer>(value: &i64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        match Number::deserialize(from)? {
            Number::Signed(value) => Ok(value),
            Number::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// Optional bytes: written as standard base64, read with or without padding.
pub(crate) mod bytes {
    use super::{Deserialize, Deserializer};
    use base64::Engine as _;
    use base64::alphabet::STANDARD;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    use serde::Serializer;
    use serde::de::Error;

    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );

    #[allow(clippy::ref_option, reason = "the signature that serde's `with` asks for")]
    pub(crate) fn serialize<S: Serializer>(value: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&LENIENT.encode(value.as_deref().unwrap_or_default()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        LENIENT.decode(text).map(Some).map_err(D::Error::custom)
    }
}

/// An enum that is written by name and read by name or number; an unknown one is refused.
macro_rules! proto_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                match $crate::json::NameOrNumber::deserialize(from)? {
                    $($crate::json::NameOrNumber::Name(name) if name == $text => Ok(Self::$variant),
                    $crate::json::NameOrNumber::Number($number) => Ok(Self::$variant),)+
                    other => Err(serde::de::Error::custom(format!("{other} is no {}", stringify!($name)))),
                }
            }
        }
    };
}
pub(crate) use proto_enum;

/// How an enum arrives.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum NameOrNumber {
    Number(i64),
    Name(String),
}

impl std::fmt::Display for NameOrNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}
