//! Words of a peer's, on their way to a person: to a log, a terminal, a page.

/// The longest prefix of a text of at most `max` bytes, with `?` for every character that is no part of a line of text: what
/// moves a cursor, ends a line, or turns the direction of writing could make a terminal show what nobody said.
pub fn printable(text: &str, max: usize) -> String {
    let kept = &text[..text.floor_char_boundary(max)];
    kept.chars()
        .map(|letter| if shown(letter) { letter } else { '?' })
        .collect()
}

/// Neither a control character nor one that reorders or separates lines (Unicode's bidirectional controls).
fn shown(letter: char) -> bool {
    let reorders = matches!(letter, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !letter.is_control() && !reorders
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: words stay as they are, in any script; escapes, line ends and reordering characters do not; a text is cut
    /// between characters.
    #[test]
    fn only_words_are_left() {
        for words in ["", "disk full: 3 % left", "größer, 大きい, 🦀"] {
            assert_eq!(printable(words, 100), words);
        }
        assert_eq!(
            printable("\u{1b}[2J\u{1b}]0;title\u{7}ok", 100),
            "?[2J?]0;title?ok"
        );
        assert_eq!(
            printable("all well\r\nrelayer-1  ok\t", 100),
            "all well??relayer-1  ok?"
        );
        assert_eq!(printable("a\u{202e}b\u{2069}c\u{9b}31m", 100), "a?b?c?31m");
        assert_eq!(printable("größer", 3), "gr");
        assert_eq!(printable("größer", 4), "grö");
    }
}
