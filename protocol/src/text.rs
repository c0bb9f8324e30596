//! Text in MQTT packets.

/// Whether brokers end the connection of a client that sends this character: control characters and non-characters
/// (MQTT 5, section 1.5.4). What foreigners sent must not be quoted with them.
#[must_use]
pub fn is_forbidden(c: char) -> bool {
    let is_noncharacter = matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    c.is_control() || is_noncharacter
}
