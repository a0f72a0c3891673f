//! What can be changed while a guest runs, and is not as the settings ask for: a pure comparison.
//!
//! A snapshot holds the limits of the guest that it was taken of and none of the metadata, and a guest that an earlier
//! daemon started has what that daemon's settings were. Both get today's.

use crate::api::{
    BalloonStatsUpdate, MmdsContentsObject, PartialDrive, PartialNetworkInterface, RateLimiter, TokenBucket,
};
use crate::config::{FirecrackerConfig, Limit};
use crate::machine::{Setting, request, token_bucket};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The part of `GET /vm/config` that can be changed.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct InForce {
    #[serde(default)]
    drives: Vec<Drive>,
    #[serde(default, rename = "network-interfaces")]
    interfaces: Vec<Interface>,
    balloon: Option<Balloon>,
    #[serde(rename = "mmds-config")]
    metadata: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
struct Drive {
    drive_id: String,
    rate_limiter: Option<RateLimiter>,
}

#[derive(Clone, Debug, Deserialize)]
struct Interface {
    iface_id: String,
    rx_rate_limiter: Option<RateLimiter>,
    tx_rate_limiter: Option<RateLimiter>,
}

#[derive(Clone, Debug, Deserialize)]
struct Balloon {
    #[serde(default)]
    stats_polling_interval_s: u32,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Patch(Setting),
    Put(Setting),
}

/// What is to be asked for.
pub(crate) fn changes(in_force: &InForce, config: &FirecrackerConfig) -> serde_json::Result<Vec<Change>> {
    let drives = in_force.drives.iter().filter_map(|drive| drive_change(drive, &config.drive_limit));
    let interfaces = in_force.interfaces.iter().filter_map(|interface| interface_change(interface, config));
    let statistics = in_force.balloon.iter().filter_map(|balloon| statistics_change(balloon, config));
    let patches = drives.chain(interfaces).chain(statistics).map(|setting| setting.map(Change::Patch));
    patches.chain(in_force.metadata.iter().map(|_| metadata(config).map(Change::Put))).collect()
}

/// What the service answers is in no snapshot, and is not read back either.
fn metadata(config: &FirecrackerConfig) -> serde_json::Result<Setting> {
    let contents = config.mmds.as_ref().map(|mmds| mmds.contents.clone()).unwrap_or_default();
    request("/mmds".to_owned(), &MmdsContentsObject(contents))
}

fn drive_change(drive: &Drive, wanted: &Limit) -> Option<serde_json::Result<Setting>> {
    let id = &drive.drive_id;
    let change = PartialDrive {
        drive_id: id.clone(),
        path_on_host: None,
        rate_limiter: Some(limiter_change(drive.rate_limiter.as_ref(), wanted)?),
    };
    Some(request(format!("/drives/{id}"), &change))
}

fn interface_change(
    interface: &Interface,
    config: &FirecrackerConfig,
) -> Option<serde_json::Result<Setting>> {
    let rx_rate_limiter = limiter_change(interface.rx_rate_limiter.as_ref(), &config.receive_limit);
    let tx_rate_limiter = limiter_change(interface.tx_rate_limiter.as_ref(), &config.send_limit);
    if rx_rate_limiter.is_none() && tx_rate_limiter.is_none() {
        return None;
    }
    let id = &interface.iface_id;
    let change = PartialNetworkInterface { iface_id: id.clone(), rx_rate_limiter, tx_rate_limiter };
    Some(request(format!("/network-interfaces/{id}"), &change))
}

/// Firecracker changes the interval of statistics that are on, and turns them neither on nor off.
fn statistics_change(balloon: &Balloon, config: &FirecrackerConfig) -> Option<serde_json::Result<Setting>> {
    let wanted = config.balloon.as_ref()?.statistics_interval_s;
    let is_on = wanted > 0 && balloon.stats_polling_interval_s > 0;
    let change = BalloonStatsUpdate { stats_polling_interval_s: wanted };
    (is_on && wanted != balloon.stats_polling_interval_s)
        .then(|| request("/balloon/statistics".to_owned(), &change))
}

/// A bucket that is left out stays as it is.
fn limiter_change(in_force: Option<&RateLimiter>, wanted: &Limit) -> Option<RateLimiter> {
    let bandwidth = in_force.and_then(|limiter| limiter.bandwidth.as_ref());
    let ops = in_force.and_then(|limiter| limiter.ops.as_ref());
    let change = RateLimiter {
        bandwidth: bucket_change(bandwidth, wanted.bytes_per_second),
        ops: bucket_change(ops, wanted.operations_per_second),
    };
    (change.bandwidth.is_some() || change.ops.is_some()).then_some(change)
}

/// An empty bucket that is never filled stands for no limit.
const UNLIMITED: TokenBucket = TokenBucket { size: 0, one_time_burst: None, refill_time: 0 };

fn bucket_change(in_force: Option<&TokenBucket>, wanted: Option<i64>) -> Option<TokenBucket> {
    let rate = |bucket: &TokenBucket| (bucket.size, bucket.refill_time);
    let wanted = wanted.map(token_bucket);
    if in_force.map(rate) == wanted.as_ref().map(rate) {
        return None;
    }
    Some(wanted.unwrap_or(UNLIMITED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BalloonConfig;
    use serde_json::{Value, json};

    fn asked(in_force: Value, config: &FirecrackerConfig) -> Vec<(String, Value)> {
        let in_force = serde_json::from_value(in_force).unwrap();
        let changes = changes(&in_force, config).unwrap().into_iter();
        changes.map(|(Change::Patch(setting) | Change::Put(setting))| (setting.path, setting.value)).collect()
    }

    /// As Firecracker 1.16.1 answers, with what is of no concern here.
    fn machine(drive: Value, receive: Value, send: Value) -> Value {
        json!({
            "balloon": null, "cpu-config": null, "boot-source": {"kernel_image_path": "", "boot_args": null},
            "drives": [{"drive_id": "disk0", "is_root_device": false, "partuuid": null, "rate_limiter": drive}],
            "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0", "mtu": null,
                                    "rx_rate_limiter": receive, "tx_rate_limiter": send}],
        })
    }

    fn bucket(size: i64) -> Value {
        json!({"size": size, "one_time_burst": null, "refill_time": 1000})
    }

    fn limited() -> FirecrackerConfig {
        let limit =
            |bytes, operations| Limit { bytes_per_second: Some(bytes), operations_per_second: operations };
        FirecrackerConfig {
            drive_limit: limit(1000, Some(10)),
            send_limit: limit(7, None),
            ..FirecrackerConfig::default()
        }
    }

    #[test]
    fn nothing_is_asked_for_where_the_limits_are_those_of_the_settings() {
        let none = machine(Value::Null, Value::Null, Value::Null);
        assert_eq!(asked(none, &FirecrackerConfig::default()), []);
        let drive = json!({"bandwidth": bucket(1000), "ops": bucket(10)});
        let as_wanted = machine(drive, Value::Null, json!({"bandwidth": bucket(7), "ops": null}));
        assert_eq!(asked(as_wanted, &limited()), []);
    }

    #[test]
    fn limits_are_set_changed_and_taken_away_each_for_itself() {
        let drive = json!({"bandwidth": bucket(999), "ops": bucket(10)});
        let other = machine(drive, json!({"bandwidth": null, "ops": bucket(3)}), Value::Null);
        let bucket = |size: i64| json!({"size": size, "refill_time": 1000});
        let unlimited = json!({"size": 0, "refill_time": 0});
        let expected = [
            ("/drives/disk0", json!({"drive_id": "disk0", "rate_limiter": {"bandwidth": bucket(1000)}})),
            (
                "/network-interfaces/eth0",
                json!({"iface_id": "eth0", "rx_rate_limiter": {"ops": unlimited},
                       "tx_rate_limiter": {"bandwidth": bucket(7)}}),
            ),
        ];
        assert_eq!(asked(other, &limited()), expected.map(|(path, value)| (path.to_owned(), value)));
    }

    #[test]
    fn statistics_change_their_interval_and_are_turned_neither_on_nor_off() {
        let with =
            |interval: u32| json!({"balloon": {"amount_mib": 0, "stats_polling_interval_s": interval}});
        let balloon =
            |statistics_interval_s| Some(BalloonConfig { statistics_interval_s, ..BalloonConfig::default() });
        let config =
            |interval| FirecrackerConfig { balloon: balloon(interval), ..FirecrackerConfig::default() };
        let change = ("/balloon/statistics".to_owned(), json!({"stats_polling_interval_s": 2}));
        assert_eq!(asked(with(5), &config(2)), [change]);
        for (in_force, wanted) in [(5, 5), (5, 0), (0, 5)] {
            assert_eq!(asked(with(in_force), &config(wanted)), []);
        }
    }

    #[test]
    fn a_guest_that_has_the_metadata_service_gets_what_it_answers_today() {
        let with = || json!({"mmds-config": {"version": "V2", "network_interfaces": ["eth0"]}});
        let contents = json!({"region": "here"}).as_object().unwrap().clone();
        let mmds = Some(crate::config::MmdsConfig { contents });
        let on = FirecrackerConfig { mmds, ..FirecrackerConfig::default() };
        assert_eq!(asked(with(), &on), [("/mmds".to_owned(), json!({"region": "here"}))]);
        assert_eq!(asked(with(), &FirecrackerConfig::default()), [("/mmds".to_owned(), json!({}))]);
        assert_eq!(asked(json!({"mmds-config": null}), &on), []);
    }

    proptest::proptest! {
        #[test]
        fn once_changed_nothing_is_left_to_change(before: Option<u32>, wanted: Option<u32>) {
            let rate = |rate: Option<u32>| rate.map(|rate| i64::from(rate) + 1);
            let in_force = rate(before).map(token_bucket);
            let change = bucket_change(in_force.as_ref(), rate(wanted));
            let after = change.or(in_force).filter(|bucket| *bucket != UNLIMITED);
            proptest::prop_assert_eq!(bucket_change(after.as_ref(), rate(wanted)), None);
        }
    }
}
