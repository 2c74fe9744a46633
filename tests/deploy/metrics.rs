//! Metrics and alerts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use harness::{
    checkout::Checkout,
    http,
    project::Project,
    tools::{Tools, docker, inspect, root},
    wait,
};
use libtest_mimic::Trial;
use serde_json::Value;
use url::Url;

use crate::{
    site::{HTTPS_AND_METRICS, Site},
    with,
};

/// Time for Prometheus to notice a change: a DNS query and a scrape.
const NOTICED: Duration = Duration::from_secs(20);

/// Time for an alert to fire or resolve.
const ALERTED: Duration = Duration::from_secs(90);

/// Time to collect samples before a replica is killed: the alert compares with their median.
const USUAL: Duration = Duration::from_secs(150);

/// The compose files, for `COMPOSE_FILE`.
const METRICS: &str = "docker-compose.yml:deploy/metrics.yml";

/// Claims for both generations of compose.
pub fn both_tools(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "every_replica_is_scraped", scraped),
        with(tools, "changed_rules_are_used_after_up", changed_rules),
        with(tools, "nothing_of_the_project_is_mounted", not_mounted),
    ]
}

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "alert_rules_hold_from_both_sides", rules),
        with(tools, "alerts_come_and_go", alerts),
        with(tools, "a_certificate_that_expires_is_an_alert", certificate),
    ]
}

/// Queries Prometheus's API.
fn api(path: &str) -> Result<Value, String> {
    let answer = http::get(&format!("http://127.0.0.1:9090/api/v1/{path}"));
    let answer = answer.map_err(|error| error.to_string())?;
    let json: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
    match json["status"] == "success" {
        true => Ok(json["data"].clone()),
        false => Err(answer.body),
    }
}

/// The results of a query.
pub fn query(expression: &str) -> Result<Vec<Value>, String> {
    let mut url = Url::parse("http://127.0.0.1:9090/").unwrap();
    url.query_pairs_mut().append_pair("query", expression);
    let data = api(&format!("query?{}", url.query().unwrap()))?;
    Ok(data["result"].as_array().cloned().unwrap_or_default())
}

/// Waits until a query has this number of results.
#[track_caller]
fn wait_for(expression: &str, results: usize, limit: Duration) {
    wait::every(Duration::from_millis(500), limit, || {
        match query(expression)? {
            found if found.len() == results => Ok(()),
            found => Err(format!("{expression}: {found:?}")),
        }
    });
}

/// The addresses of the replicas that Prometheus scrapes.
fn targets() -> Result<BTreeSet<String>, String> {
    let data = api("targets?state=active")?;
    let targets = data["activeTargets"].as_array().ok_or("no targets")?;
    let of_api = targets.iter().filter(|one| one["labels"]["job"] == "api");
    Ok(of_api
        .filter(|one| one["health"] == "up")
        .filter_map(|one| one["labels"]["instance"].as_str())
        .map(str::to_owned)
        .collect())
}

/// The addresses of the running replicas.
fn replicas(project: &Project) -> BTreeSet<String> {
    let network = "{{range $name, $one := .NetworkSettings.Networks}}{{$one.IPAddress}}{{end}}";
    let ids = project.containers("api");
    let addresses = ids.iter().map(|id| inspect(id, network));
    addresses.map(|address| format!("{address}:5253")).collect()
}

#[track_caller]
fn wait_for_targets(project: &Project) {
    let expected = replicas(project);
    wait::every(Duration::from_millis(500), NOTICED, || match targets()? {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}, expected {expected:?}")),
    });
}

fn stack(tools: Tools) -> Project {
    let project = Project::new(tools, ".").with("COMPOSE_FILE", METRICS);
    project.run("docker-compose up -d --build");
    wait::until(NOTICED, || api("targets").map(drop));
    project
}

fn scraped(tools: Tools) {
    let project = stack(tools);
    wait_for_targets(&project);
    for replicas in [4, 1, 2] {
        project.run(&format!(
            "docker-compose up -d --no-recreate --scale api={replicas}"
        ));
        wait_for_targets(&project);
    }

    // Request counters, and the proxy's metrics.
    for _ in 0..10 {
        assert_eq!(http::get("http://localhost/api/hello").unwrap().status, 200);
    }
    let requests =
        r#"sum(http_requests_total{method="GET",route="/api/hello",status="200"}) == 10"#;
    wait_for(requests, 1, NOTICED);
    wait_for("nginx_up == 1", 1, NOTICED);
    wait_for("nginx_http_requests_total >= 10", 1, NOTICED);
    for name in [
        "http_request_duration_seconds_count",
        "http_requests_in_flight",
        "process_start_time_seconds{job=\"api\"}",
        "api_build_info{version=\"1.0.0\"}",
        "log_lines_dropped_total == 0",
    ] {
        let count = query(&format!("count(count by (instance) ({name})) == 2"));
        assert_eq!(count.unwrap().len(), 1, "{name}");
    }

    // Reachable from this machine only, and not through the proxy.
    let published = docker(&["port", &project.container("prometheus")]);
    assert_eq!(published, "9090/tcp -> 127.0.0.1:9090");
    for path in ["/metrics", "/api/metrics", "/status", "/nginx_status"] {
        let answer = http::get(&format!("http://localhost{path}")).unwrap();
        assert_eq!(answer.status, 404, "{path}");
    }
    for service in ["proxy", "nginx-exporter", "blackbox-exporter", "api"] {
        for id in project.containers(service) {
            let ports = docker(&["port", &id]);
            let expected = if service == "proxy" { "80/tcp" } else { "" };
            assert!(
                ports
                    .lines()
                    .all(|line| line.starts_with(expected) && !expected.is_empty()),
                "{ports}"
            );
        }
    }

    // Users, capabilities and limits.
    let users = BTreeMap::from([
        ("prometheus", "65534:65534"),
        ("nginx-exporter", "1001:1001"),
        ("blackbox-exporter", "65534:65534"),
    ]);
    for (service, user) in users {
        let id = project.container(service);
        let rights = "{{.Config.User}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} \
                      {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.SecurityOpt}}";
        let expected = format!("{user} [ALL] [] true [no-new-privileges:true]");
        assert_eq!(inspect(&id, rights), expected, "{service}");
        assert_ne!(inspect(&id, "{{.HostConfig.Memory}}"), "0", "{service}");
    }
    let flags = api("status/flags").unwrap();
    assert_eq!(flags["storage.tsdb.retention.time"], "15d");
    assert_eq!(flags["storage.tsdb.retention.size"], "512MiB");
}

fn changed_rules(tools: Tools) {
    let checkout = Checkout::copy();
    let project = Project::new(tools, &checkout.folder()).with("COMPOSE_FILE", METRICS);
    project.run("docker-compose up -d --build");
    let has = |alert: &str| -> Result<(), String> {
        let rules = api("rules")?;
        match rules.to_string().contains(&format!("\"name\":\"{alert}\"")) {
            true => Ok(()),
            false => Err(format!("no {alert}: {rules}")),
        }
    };
    wait::until(NOTICED, || has("NoReplica"));
    // As an editor and git do it: a new file in the place of the old one.
    let rules = checkout.path().join("deploy/metrics/prometheus/alerts.yml");
    let text = fs::read_to_string(&rules).unwrap();
    fs::remove_file(&rules).unwrap();
    fs::write(&rules, text.replace("NoReplica", "NobodyThere")).unwrap();
    project.run("docker-compose up -d --build");
    wait::until(NOTICED, || has("NobodyThere"));
    drop(project);
    // The image of this checkout, for the other cases.
    Project::new(tools, ".")
        .with("COMPOSE_FILE", METRICS)
        .run("docker-compose build prometheus");
}

/// On a remote engine, files of this machine cannot be mounted.
fn not_mounted(tools: Tools) {
    let project = Project::new(tools, ".")
        .with(
            "COMPOSE_FILE",
            "docker-compose.yml:deploy/https.yml:deploy/metrics.yml",
        )
        .with("DOMAIN", "stack.test")
        .with("EMAIL", "admin@stack.test");
    let config = project.run("docker-compose config");
    let (services, volumes) = config.split_once("\nvolumes:").expect("named volumes");
    assert!(services.contains("/certificates"), "{config}");
    assert!(volumes.contains("certificates:"), "{config}");
    let here = root().canonicalize().unwrap().display().to_string();
    let bind = services.lines().find(|line| {
        let line = line.trim_start_matches([' ', '-']);
        line.starts_with("type: bind") || line.trim_start_matches("source: ").starts_with(&here)
    });
    assert_eq!(bind, None, "{config}");
}

fn rules(_: Tools) {
    let project = format!("--volume={}:/project:ro", root().display());
    let text = docker(&[
        "run",
        "--rm",
        &project,
        "--tmpfs=/tmp:mode=1777",
        "--entrypoint=promtool",
        "prom/prometheus:v3.5.3",
        "test",
        "rules",
        "/project/tests/deploy/alerts.yml",
    ]);
    assert!(text.contains("SUCCESS"), "{text}");
    // Each alert fires in one of the test cases.
    let (rules, cases) = [
        "deploy/metrics/prometheus/alerts.yml",
        "tests/deploy/alerts.yml",
    ]
    .map(|file| fs::read_to_string(root().join(file)).unwrap())
    .into();
    for rule in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        let fires = format!("alertname: {rule}\n        exp_alerts:");
        assert!(
            cases.contains(&fires),
            "{rule} never fires in tests/deploy/alerts.yml"
        );
    }
}

/// Waits until an alert fires, or until it does not.
#[track_caller]
fn wait_for_alert(name: &str, fires: bool) {
    let firing = format!(r#"ALERTS{{alertname="{name}",alertstate="firing"}}"#);
    wait_for(&firing, usize::from(fires), ALERTED);
}

fn alerts(tools: Tools) {
    let project = Project::new(tools, ".").with("COMPOSE_FILE", METRICS);
    project.run("docker-compose up -d --build --scale api=3");
    // Collect more samples with three replicas than the alert waits for.
    let samples = r#"count_over_time(count(up{job="api"} == 1)[1h:10s]) >= 9"#;
    wait_for(samples, 1, USUAL);
    assert_eq!(
        query(r#"ALERTS{alertstate="firing"}"#).unwrap(),
        Vec::<Value>::new()
    );

    let victim = project.containers("api").into_iter().next().expect("three");
    docker(&["kill", &victim]);
    wait_for_alert("ReplicaDown", true);
    docker(&["start", &victim]);
    wait_for_alert("ReplicaDown", false);

    project.run("docker-compose kill api");
    wait_for_alert("NoReplica", true);
    project.run("docker-compose start api");
    wait_for_alert("NoReplica", false);

    docker(&["kill", &project.container("proxy")]);
    wait_for_alert("ProxyDown", true);
}

fn certificate(tools: Tools) {
    // Valid for 90 days: no alert. Uses HTTPS and metrics together.
    let site = Site::up(tools, HTTPS_AND_METRICS);
    wait_for(
        "probe_ssl_earliest_cert_expiry - time() > 89 * 86400",
        1,
        ALERTED,
    );
    wait_for(r#"ALERTS{alertname="CertificateExpires"}"#, 0, NOTICED);
    drop(site);
    // Valid for ten days, less than 14.
    let site = Site::new(tools, HTTPS_AND_METRICS);
    let site = site.with("PEBBLE_CONFIG", "ten-days.json");
    site.project.run("docker-compose up -d");
    site.wait_for_https(crate::site::FIRST_START);
    wait_for_alert("CertificateExpires", true);
}
