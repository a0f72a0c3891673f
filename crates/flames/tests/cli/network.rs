//! What a sandbox may reach, from the command line: mistakes are told by their place.

use crate::home::Home;

/// Rules that nobody can mean, and what is said of each.
const MISTAKES: [(&[&str], &str); 12] = [
    (&["--allow-out", "10.0.0.0/33"], "network.allow[0]"),
    (&["--allow-out", "10.0.0.1/24"], "network.allow[0]"),
    (&["--allow-out", "300.1.1.1"], "network.allow[0]"),
    (&["--allow-out", "10.0.0.1:0"], "network.allow[0]"),
    (&["--allow-out", "10.0.0.1", "--allow-out", "10.0.0.1:70000"], "network.allow[1]"),
    (&["--allow-out", "10.0.0.1:90-80"], "network.allow[0]"),
    (&["--allow-out", "10.0.0.1/sctp"], "network.allow[0]"),
    (&["--allow-out", "exa mple.com"], "network.allow[0]"),
    (&["--allow-out", "a.*.example.com"], "network.allow[0]"),
    (&["--deny-out", "203.0.113.0/24"], "network.deny[0]"),
    (&["--internet", "--deny-out", "example.com"], "network.deny[0]"),
    (&["--internet", "--dns", "nowhere"], "network.dns[0]"),
];

#[test]
fn a_rule_that_nobody_can_mean_is_refused_by_name_and_nothing_is_made() {
    let mut home = Home::bare();
    home.up();
    for (words, place) in MISTAKES {
        let problem = home.refused(&[&["create"], words].concat());
        assert_eq!(problem["id"], place, "{words:?}: {problem}");
        assert_eq!(problem["status"], 400, "{words:?}: {problem}");
    }
    let many: Vec<String> =
        (0..257).map(|n| format!("--allow-out=10.{}.{}.0/24", n / 256, n % 256)).collect();
    let words: Vec<&str> = ["create"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert!(home.refused(&words).to_string().contains("256"));
    let set = home.refused(&["network", "set", "nobody", "--allow-out", "10.0.0.0/33"]);
    assert!(set.to_string().contains("10.0.0.0/33") || set.to_string().contains("nobody"), "{set}");
    assert_eq!(home.ok(&["ls", "-q"]), "");
}
