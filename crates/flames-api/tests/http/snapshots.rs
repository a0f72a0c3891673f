//! Pause, resume, snapshot and fork through the API, and what each refuses.

use crate::house::House;
use axum::http::header;
use flames_core::sandbox::room::MemoryLimit;
use flames_node::{CreateStep, ErrorKind, MiB};
use serde_json::{Value, json};

async fn pause(house: &House, id: &str, mode: &str) -> Value {
    let answer = house.post(&format!("/v1/sandboxes/{id}/pause"), &json!({ "mode": mode })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_sandbox_is_paused_to_disk_and_brought_back_with_its_stages() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let rests = pause(&house, &id, "disk").await;
    assert_eq!(
        (&rests["sandbox"]["state"], &rests["timings"]["paused_ms"]),
        (&"snapshotted".into(), &3.0.into())
    );
    assert_eq!(rests["sandbox"]["ends_at"], Value::Null);
    assert_eq!(house.node.running(), []);
    let back = house.post(&format!("/v1/sandboxes/{id}/resume"), &json!({ "timeout_s": 0 })).await;
    assert_eq!(back.status, 200, "{back:?}");
    let back = back.json();
    assert_eq!((&back["sandbox"]["id"], &back["sandbox"]["state"]), (&id.into(), &"running".into()));
    assert!(back["timings"]["total_ms"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_sandbox_is_paused_in_memory() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    assert_eq!(pause(&house, &id, "memory").await["sandbox"]["state"], "paused");
    let listed = house.get("/v1/sandboxes?state=paused").await.json();
    assert_eq!(listed["sandboxes"][0]["id"], id);
}

#[tokio::test]
async fn a_sandbox_is_paused_to_its_disk_alone_and_a_snapshot_says_what_it_holds() {
    let house = House::local().await;
    let asked = json!({ "template": "mini", "on_timeout": "pause_disk_only" });
    let id = house.post("/v1/sandboxes", &asked).await.json()["id"].as_str().unwrap().to_owned();
    let taken = house
        .post(&format!("/v1/sandboxes/{id}/snapshots"), &json!({ "name": "files", "contents": "disk_only" }))
        .await
        .json();
    assert_eq!(taken["contents"], "disk_only");
    let rests = pause(&house, &id, "disk_only").await["sandbox"].clone();
    assert_eq!((&rests["state"], &rests["kept"]), (&json!("snapshotted"), &json!("disk_only")));
    assert_eq!(rests["on_timeout"], "pause_disk_only");
    let back = house.post(&format!("/v1/sandboxes/{id}/resume"), &json!({})).await.json();
    assert_eq!((&back["sandbox"]["state"], &back["sandbox"]["kept"]), (&json!("running"), &Value::Null));
}

#[tokio::test]
async fn what_is_in_the_wrong_state_is_409_by_its_id_and_what_nobody_has_is_404() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let resume = format!("/v1/sandboxes/{id}/resume");
    let refused = house.post(&resume, &json!({})).await.is_problem(409, "sandbox_not_paused");
    assert_eq!((refused.resource.as_deref(), refused.id.as_deref()), (Some("sandbox"), Some(id.as_str())));
    pause(&house, &id, "disk").await;
    for what in ["pause", "snapshots", "fork"] {
        let path = format!("/v1/sandboxes/{id}/{what}");
        let refused = house.post(&path, &json!({})).await.is_problem(409, "sandbox_not_running");
        assert_eq!(refused.mend.as_deref(), Some("`flames resume` brings it back"));
        let path = format!("/v1/sandboxes/inobody/{what}");
        house.post(&path, &json!({})).await.is_problem(404, "sandbox_not_found");
    }
    house.post("/v1/sandboxes/inobody/resume", &json!({})).await.is_problem(404, "sandbox_not_found");
}

#[tokio::test]
async fn a_snapshot_is_taken_listed_created_from_and_removed() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let taken = house.post(&format!("/v1/sandboxes/{id}/snapshots"), &json!({ "name": "golden" })).await;
    assert_eq!(taken.status, 201, "{taken:?}");
    let taken = taken.json();
    assert_eq!((&taken["status"], &taken["source"]), (&"ready".into(), &id.clone().into()));
    assert_eq!(house.get("/v1/snapshots").await.json()["snapshots"], json!([taken]));
    house.delete(&format!("/v1/sandboxes/{id}")).await;
    let clone = house.post("/v1/sandboxes", &json!({ "from_snapshot": "golden" })).await;
    assert_eq!(clone.status, 201, "{clone:?}");
    assert_eq!((&clone.json()["from_snapshot"], &clone.json()["template"]), (&taken["id"], &"mini".into()));
    assert_eq!(house.get("/v1/snapshots/golden").await.json()["clones"], 1);
    let path = format!("/v1/snapshots/{}", taken["id"].as_str().unwrap());
    assert_eq!(house.delete(&path).await.status, 204);
    house.get(&path).await.is_problem(404, "snapshot_not_found");
    house.delete("/v1/snapshots/golden").await.is_problem(404, "snapshot_not_found");
    let gone = house.post("/v1/sandboxes", &json!({ "from_snapshot": "golden" })).await;
    let gone = gone.is_problem(404, "snapshot_not_found");
    assert_eq!((gone.resource.as_deref(), gone.id.as_deref()), (Some("snapshot"), Some("golden")));
}

#[tokio::test]
async fn a_name_that_is_taken_or_none_is_refused() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let path = format!("/v1/sandboxes/{id}/snapshots");
    house.post(&path, &json!({ "name": "golden" })).await;
    let taken = house.post(&path, &json!({ "name": "golden" })).await.is_problem(409, "snapshot_name_taken");
    assert_eq!((taken.id.as_deref(), taken.mend.is_some()), (Some("golden"), true));
    for bad in ["", "../x", "A", " "] {
        let refused = house.post(&path, &json!({ "name": bad })).await.is_problem(400, "invalid_request");
        assert_eq!(refused.id.as_deref(), Some("name"), "{bad:?}");
    }
    assert_eq!(house.node.snapshot_ids().len(), 1);
}

#[tokio::test]
async fn forks_come_with_their_stages_and_a_count_out_of_range_is_refused() {
    let house = House::local().await;
    let id = house.create(json!({ "team": "a" })).await;
    let path = format!("/v1/sandboxes/{id}/fork");
    let forked = house.post(&path, &json!({ "count": 3 })).await;
    assert_eq!(forked.status, 201, "{forked:?}");
    let forked = forked.json();
    assert_eq!(forked["forks"].as_array().unwrap().len(), 3);
    for fork in forked["forks"].as_array().unwrap() {
        assert_eq!((&fork["forked_from"], &fork["metadata"]["team"]), (&id.clone().into(), &"a".into()));
    }
    assert!(forked["timings"]["total_ms"].as_f64() >= forked["timings"]["capture_ms"].as_f64());
    for count in [0, 21] {
        let refused = house.post(&path, &json!({ "count": count })).await.is_problem(400, "invalid_request");
        assert_eq!(refused.id.as_deref(), Some("count"));
    }
    house.post(&path, &json!({ "count": -1 })).await.is_problem(400, "invalid_request");
    assert_eq!(house.node.running().len(), 4);
}

#[tokio::test]
async fn a_snapshot_of_another_vmm_or_with_a_damaged_part_is_refused_with_its_id_and_a_mend() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    let taken =
        house.post(&format!("/v1/sandboxes/{id}/snapshots"), &json!({ "name": "golden" })).await.json();
    pause(&house, &id, "disk").await;
    for kind in [ErrorKind::Corrupt, ErrorKind::NotFound, ErrorKind::Conflict] {
        house.node.fail_creates_at(Some(CreateStep::Template));
        house.node.fail_creates_as(kind);
        let refused = house.post("/v1/sandboxes", &json!({ "from_snapshot": "golden" })).await;
        let refused = refused.is_problem(409, "snapshot_unusable");
        assert_eq!(refused.resource.as_deref(), Some("snapshot"));
        assert_eq!((refused.id.as_deref(), refused.mend.is_some()), (taken["id"].as_str(), true));
        let refused = house.post(&format!("/v1/sandboxes/{id}/resume"), &json!({})).await;
        let refused = refused.is_problem(409, "snapshot_unusable");
        assert_eq!(
            (refused.resource.as_deref(), refused.id.as_deref()),
            (Some("sandbox"), Some(id.as_str()))
        );
    }
    assert_eq!(house.get(&format!("/v1/sandboxes/{id}")).await.json()["state"], "snapshotted");
}

#[tokio::test]
async fn a_driver_that_takes_no_snapshots_is_501_and_a_full_disk_503_and_the_sandbox_runs_on() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    for (kind, status, code) in
        [(ErrorKind::Unsupported, 501, "unsupported"), (ErrorKind::Unavailable, 503, "unavailable")]
    {
        house.node.fail_stops(Some(kind));
        for what in ["snapshots", "fork"] {
            let path = format!("/v1/sandboxes/{id}/{what}");
            let refused = house.post(&path, &json!({})).await.is_problem(status, code);
            assert_eq!(refused.id.as_deref(), Some(id.as_str()));
        }
    }
    house.node.fail_stops(None);
    assert_eq!(house.get(&format!("/v1/sandboxes/{id}")).await.json()["state"], "running");
    assert_eq!(house.get("/v1/snapshots").await.json()["snapshots"], json!([]));
}

#[tokio::test]
async fn a_create_that_does_not_fit_is_503_at_once_with_a_time_to_come_back() {
    let house = House::with_memory(MemoryLimit::Fixed(MiB(600))).await;
    house.create(json!({})).await;
    house.create(json!({})).await;
    let answer = house.post("/v1/sandboxes", &json!({ "template": "mini" })).await;
    let refused = answer.is_problem(503, "no_room");
    assert!(refused.mend.unwrap().contains("limits.memory_mib"));
    let after: u64 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!(after >= 1 && refused.retry_after_s == Some(after));
    assert_eq!(house.node.running().len(), 2);
}

#[tokio::test]
async fn a_field_that_nobody_knows_and_a_mode_that_is_none_are_refused() {
    let house = House::local().await;
    let id = house.create(json!({})).await;
    for (what, body) in [
        ("pause", json!({ "mode": "ram" })),
        ("pause", json!({ "memory": true })),
        ("resume", json!({ "timeout": 5 })),
        ("snapshots", json!({ "nam": "x" })),
        ("fork", json!({ "n": 2 })),
    ] {
        let path = format!("/v1/sandboxes/{id}/{what}");
        house.post(&path, &body).await.is_problem(400, "invalid_request");
    }
    let body = json!({ "template": "mini", "on_timeout": "sleep" });
    house.post("/v1/sandboxes", &body).await.is_problem(400, "invalid_request");
}
