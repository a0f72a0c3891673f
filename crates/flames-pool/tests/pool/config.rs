//! What a pool may be asked to be.

use flames_pool::{ByArrivals, ByUse, PoolConfig, PoolRequest, Preset, Strategy, Tiers};

fn fields(config: &PoolConfig) -> Vec<String> {
    config.validate().unwrap_err().into_iter().map(|mistake| mistake.field).collect()
}

#[test]
fn every_preset_passes_the_check_and_each_keeps_more_ready_than_the_one_before() {
    let maxima = Preset::ALL.map(|preset| {
        let config = preset.config("mini");
        assert_eq!(config.validate(), Ok(()), "{preset}");
        (config.tiers.running, config.maximum)
    });
    assert!(maxima.is_sorted_by(|small, large| small.0 < large.0 && small.1 < large.1), "{maxima:?}");
}

#[test]
fn all_mistakes_are_found_at_once_each_with_its_field() {
    let mut config = Preset::Aggressive.config("");
    config.memory_mib = Some(0);
    config.tiers = Tiers { running: 5, paused: 0, prepared: 0 };
    (config.minimum, config.maximum) = (9, 4);
    (config.refill_concurrency, config.max_replacements) = (0, 0);
    config.autoscale.by_use =
        Some(ByUse { grow_above: 1.5, shrink_below: 2.0, grow_by: 0, ..ByUse::default() });
    config.autoscale.by_arrivals =
        Some(ByArrivals { half_life_s: 0.0, lead_time_s: f64::NAN, ..ByArrivals::default() });
    let expected = [
        "template",
        "memory_mib",
        "tiers",
        "minimum",
        "refill_concurrency",
        "max_replacements",
        "autoscale.by_use.grow_above",
        "autoscale.by_use.shrink_below",
        "autoscale.by_use.shrink_below",
        "autoscale.by_use.grow_by",
        "autoscale.by_arrivals.half_life_s",
        "autoscale.by_arrivals.lead_time_s",
    ];
    assert_eq!(fields(&config), expected);
}

#[test]
fn a_mistake_says_what_is_wrong_and_how_to_mend_it() {
    let config = PoolConfig { minimum: 9, maximum: 8, ..Preset::Standard.config("mini") };
    let mistakes = config.validate().unwrap_err();
    assert_eq!(
        mistakes[0].to_string(),
        "minimum is 9, more than the maximum of 8: lower it to 8 or raise maximum"
    );
}

#[test]
fn what_is_left_out_is_as_in_the_standard_preset() {
    let config: PoolConfig = serde_json::from_str(r#"{"template": "mini"}"#).unwrap();
    assert_eq!(config, Preset::Standard.config("mini"));
}

#[test]
fn a_configuration_survives_json() {
    for preset in Preset::ALL {
        let config = preset.config("base");
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<PoolConfig>(&json).unwrap(), config, "{json}");
    }
}

#[test]
fn an_unknown_strategy_is_refused_with_the_names_of_all() {
    let json = r#"{"template": "mini", "strategy": "best"}"#;
    let refusal = serde_json::from_str::<PoolConfig>(json).unwrap_err().to_string();
    assert!(Strategy::ALL.iter().all(|strategy| refusal.contains(strategy.name())), "{refusal}");
    let refusal = "best".parse::<Strategy>().unwrap_err();
    assert!(Strategy::ALL.iter().all(|strategy| refusal.contains(strategy.name())), "{refusal}");
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    let json = r#"{"template": "mini", "tiers": {"runing": 3}}"#;
    let refusal = serde_json::from_str::<PoolConfig>(json).unwrap_err().to_string();
    assert!(refusal.contains("runing") && refusal.contains("running"), "{refusal}");
}

#[test]
fn a_request_is_its_preset_but_for_what_it_says() {
    let json = r#"{"template": "mini", "preset": "aggressive", "maximum": 40, "strategy": "round-robin"}"#;
    let request: PoolRequest = serde_json::from_str(json).unwrap();
    let expected =
        PoolConfig { maximum: 40, strategy: Strategy::RoundRobin, ..Preset::Aggressive.config("mini") };
    assert_eq!(request.config(), expected);
}

#[test]
fn a_preset_can_be_lowered_to_a_mistake_that_the_check_finds() {
    let request = PoolRequest { template: "mini".to_owned(), maximum: Some(1), ..PoolRequest::default() };
    assert_eq!(fields(&request.config()), ["tiers", "minimum"]);
}
