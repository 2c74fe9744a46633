//! HTTPS: certificates and renewal, protocols, no lost requests.

use std::{process::Command, thread, time::Duration};

use harness::{
    container::stop,
    http,
    load::{Load, Requests},
    project::Project,
    tools::{Tools, docker, inspect, output},
    wait,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    on_site,
    site::{FIRST_START, HOST, HTTPS, RENEWED, Site},
    with,
};

/// Slowest response during a planned change.
const CHANGED: Duration = Duration::from_millis(500);

/// Time after a change until every replica gets an equal share again.
const SETTLED: Duration = Duration::from_secs(4);

/// Time until certbot's log has the outcome of its first try.
const FIRST_TRY: Duration = Duration::from_secs(40);

/// Findings of testssl.sh that a test CA cannot avoid, with the reason.
const FINDINGS: [(&str, &str); 3] = [
    (
        "cert_revocation",
        "pebble names no place for revocations, as a real CA does",
    ),
    ("DNS_CAArecord", "the host name is in no public DNS"),
    (
        "engine_problem",
        "a warning that this OpenSSL has no GOST ciphers to test with",
    ),
];

/// Claims for both generations of compose.
pub fn settings(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "https_names_a_missing_variable", missing),
        with(tools, "https_names_a_wrong_variable", wrong),
        with(tools, "https_runs_in_the_foreground", foreground),
        on_site(tools, "https_answers_within_a_minute_of_up", answers),
    ]
}

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        on_site(tools, "slow: testssl_gives_an_a", testssl),
        on_site(
            tools,
            "a_renewed_certificate_is_served_without_a_reload",
            renewal,
        ),
        on_site(tools, "nothing_is_lost_over_https", nothing_lost),
        with(tools, "another_ca_takes_effect_at_once", another_ca),
        with(tools, "slow: a_ca_that_is_away_is_retried", away),
        with(
            tools,
            "slow: a_ca_that_refuses_is_retried_ever_later",
            refuses,
        ),
    ]
}

fn missing(tools: Tools) {
    for (missing, expected) in [
        ("DOMAIN", "expected the host name of this machine"),
        ("EMAIL", "expected an address for the CA"),
    ] {
        let project = Project::new(tools, ".")
            .with("COMPOSE_FILE", "docker-compose.yml:deploy/https.yml")
            .with("DOMAIN", HOST)
            .with("EMAIL", "admin@stack.test")
            .with(missing, "");
        let error = output(&mut project.command("docker-compose up -d")).unwrap_err();
        assert!(error.contains(missing), "{error}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(project.containers("api").len(), 0, "nothing was started");
        // docker-compose down needs the variables, too.
        drop(project.with(missing, "stack.test"));
    }
}

fn wrong(tools: Tools) {
    let site = |variable, value: &str| {
        Project::new(tools, ".")
            .with("COMPOSE_FILE", "docker-compose.yml:deploy/https.yml")
            .with("DOMAIN", HOST)
            .with("EMAIL", "admin@stack.test")
            .with(variable, value)
    };
    site("DOMAIN", HOST).run("docker-compose build");
    for (variable, value, expected) in [
        ("DOMAIN", "https://stack.test", "a host name in lower case"),
        ("DOMAIN", "Stack.test", "a host name in lower case"),
        ("DOMAIN", "203.0.113.1", "a host name in lower case"),
        ("EMAIL", "admin", "an e-mail address"),
        (
            "ACME_SERVER",
            "http://stack.test",
            "the address of an ACME directory",
        ),
    ] {
        let project = site(variable, value);
        output(&mut project.command("docker-compose up -d")).expect_err("it fails");
        let log = project.run("docker-compose logs https-settings");
        let message = format!("{variable} is '{value}': expected {expected}");
        assert!(log.contains(&message), "{log}");
        assert_eq!(project.containers("certbot").len(), 0);
    }
}

/// `up` in the foreground ends with the first container that exits, and none does.
fn foreground(tools: Tools) {
    let site = Site::new(tools, HTTPS);
    site.project.run("docker-compose build");
    let up = site
        .project
        .spawn("docker-compose up --abort-on-container-exit");
    site.wait_for_https(FIRST_START);
    let settings = site.project.container("https-settings");
    assert_eq!(inspect(&settings, "{{.State.Health.Status}}"), "healthy");
    up.interrupt();
}

fn answers(site: &Site) {
    let certbot = site.project.container("certbot");
    let proxy = site.project.container("proxy");

    // HTTP: the challenge is served, everything else is redirected.
    let put = "mkdir -p /challenges/.well-known/acme-challenge \
               && echo token > /challenges/.well-known/acme-challenge/test";
    docker(&["exec", &certbot, "sh", "-c", put]);
    let challenge = http::get("http://localhost/.well-known/acme-challenge/test").unwrap();
    assert_eq!(
        (challenge.status.as_u16(), &*challenge.body),
        (200, "token\n")
    );
    for (method, path) in [
        ("GET", "/"),
        ("POST", "/api/hello?name=value"),
        ("GET", "/.well-known/other"),
    ] {
        let url = format!("http://localhost{path}");
        let answer = http::send(&http::client(), method, &url, &[("content-length", "0")]).unwrap();
        assert_eq!(answer.status, 308, "{method} {path}");
        assert_eq!(answer.header("location"), format!("https://{HOST}{path}"));
    }
    let plain = http::get("http://localhost:443/api/hello").unwrap();
    assert_eq!(plain.status, 308, "{plain:?}");
    assert_eq!(
        plain.header("location"),
        format!("https://{HOST}/api/hello")
    );

    // HTTPS: HTTP/1.1 and HTTP/2, page, API, errors.
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let format = "'\\n%{http_version} %{http_code}'";
        let text = site.curl(&format!(
            "{option} --write-out {format} https://{HOST}/api/hello"
        ));
        assert_eq!(text, format!("Hello, World!\n{version} 200"));
    }
    let page = site.curl(&format!("https://{HOST}/"));
    assert!(page.contains("<html"), "{page}");
    for path in ["/", "/api/hello", "/api/nothing", "/nothing"] {
        let headers = site
            .curl(&format!("--head https://{HOST}{path}"))
            .to_lowercase();
        for header in [
            "strict-transport-security: max-age=63072000",
            "content-security-policy: ",
            "x-request-id: ",
        ] {
            assert_eq!(
                headers.matches(header).count(),
                1,
                "{path}: {header}\n{headers}"
            );
        }
    }
    // Compression for same-origin requests only.
    let compressed = |fetch: &str| {
        let headers =
            format!("--header 'accept-encoding: gzip' --header 'sec-fetch-site: {fetch}'");
        let text = site.curl(&format!(
            "--output /dev/null --dump-header - {headers} https://{HOST}/"
        ));
        text.to_lowercase().contains("content-encoding: gzip")
    };
    assert!(compressed("none") && compressed("same-origin"));
    assert!(!compressed("cross-site"), "BREACH");

    // Permissions of the key.
    let stat = format!(
        "stat -L -c '%a %u' /certificates/live/{HOST}/privkey.pem /certificates /certificates/archive"
    );
    let modes = docker(&["exec", &certbot, "sh", "-c", &stat]);
    assert_eq!(modes, "600 101\n700 101\n700 101");
    for id in [&certbot, &proxy] {
        let rights = "{{.Config.User}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} \
                      {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.SecurityOpt}}";
        let expected = "101:101 [ALL] [] true [no-new-privileges:true]";
        assert_eq!(inspect(id, rights), expected);
    }
    let mounts = inspect(&proxy, "{{range .Mounts}}{{.Destination}} {{.RW}}\n{{end}}");
    assert!(mounts.contains("/certificates false"), "{mounts}");
    for id in [&certbot, &proxy] {
        wait::until(Duration::from_secs(30), || {
            match inspect(id, "{{.State.Health.Status}}").as_str() {
                "healthy" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }
}

/// Whether testssl.sh was too quick: it closes its first connection at once, on a busy machine before it has the session
/// that it wants to resume, and calls that a connect problem.
fn is_race(finding: &Value) -> bool {
    let text = |key: &str| finding[key].as_str().unwrap_or_default();
    text("severity") == "WARN"
        && text("id").starts_with("sessionresumption")
        && text("finding").contains("connect problem")
}

fn testssl(site: &Site) {
    let network = format!("--network=container:{}", site.project.container("proxy"));
    let root = site.root().unwrap();
    let script = format!(
        "echo '{root}' > /tmp/root.pem \
         && testssl --quiet --color 0 --warnings off --ip 127.0.0.1 --add-ca /tmp/root.pem \
            --jsonfile /tmp/findings.json {HOST}:443 > /tmp/text; cat /tmp/findings.json"
    );
    let json = docker(&[
        "run",
        "--rm",
        &network,
        "--entrypoint=bash",
        "acceptance-pebble",
        "-c",
        &script,
    ]);
    let findings: Vec<Value> = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{json}"));
    let of = |id: &str| {
        let found = findings.iter().find(|finding| finding["id"] == id);
        found.unwrap_or_else(|| panic!("no {id}: {json}"))["finding"].clone()
    };
    assert!(
        ["A", "A+"].contains(&of("overall_grade").as_str().unwrap()),
        "{json}"
    );
    assert_eq!(of("TLS1_1"), "not offered");
    assert!(of("TLS1_2").as_str().unwrap().starts_with("offered"));
    assert!(of("TLS1_3").as_str().unwrap().starts_with("offered"));
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| {
            !["OK", "INFO", "DEBUG"]
                .iter()
                .any(|fine| finding["severity"] == *fine)
        })
        .filter(|finding| !FINDINGS.iter().any(|(id, _)| finding["id"] == *id))
        .filter(|finding| !is_race(finding))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

fn renewal(site: &Site) {
    let client = site.client().unwrap();
    let before = site.handshake().unwrap();
    let proxy = site.project.container("proxy");
    // Half of the clients make a new handshake for each request.
    let kept = Load::start(443, site.requests());
    let handshakes = Load::start(
        443,
        Requests {
            keep_alive: false,
            ..site.requests()
        },
    );
    let renew = ["certbot", "renew", "--force-renewal"];
    docker(&[&["exec", &site.project.container("certbot")], &renew[..]].concat());
    wait::until(RENEWED, || match site.handshake_as(client.clone()) {
        Ok(now) if now != before => Ok(()),
        other => Err(format!("{:?}", other.map(|_| "the same certificate"))),
    });
    // Each worker has its own cache.
    for load in [&kept, &handshakes] {
        load.go_on(SETTLED);
    }
    kept.stop()
        .assert_nothing_lost("renewed, connections kept", CHANGED);
    let report = handshakes.stop();
    report.assert_nothing_lost("renewed, a handshake each", CHANGED);
    assert!(report.sent() > 100, "{}", report.sent());
    assert_eq!(site.project.container("proxy"), proxy);
    assert_eq!(inspect(&proxy, "{{.RestartCount}}"), "0");
}

fn another_ca(tools: Tools) {
    let site = Site::up(tools, HTTPS);
    let before = site.handshake().unwrap();
    // The same CA under another name: only the address matters.
    let site = site.with("ACME_SERVER", "https://other-pebble:14000/dir");
    site.project.run("docker-compose up -d");
    wait::until(RENEWED, || match site.handshake() {
        Ok(now) if now != before => Ok(()),
        other => Err(format!("{:?}", other.map(|_| "the same certificate"))),
    });
    // A restart does not renew again.
    site.project.run("docker-compose restart certbot");
    log_has(&site.project, "not yet due for renewal", FIRST_TRY);
}

/// Waits until certbot's log contains `text`.
#[track_caller]
fn log_has(project: &Project, text: &str, limit: Duration) {
    wait::every(Duration::from_millis(500), limit, || {
        let log = project.run("docker-compose logs certbot");
        match log.contains(text) {
            true => Ok(()),
            false => Err(log),
        }
    });
}

/// The CA is unreachable at the first start, and later while a certificate is served.
fn away(tools: Tools) {
    let site = Site::new(tools, HTTPS);
    site.project.run("docker-compose build");
    site.project.run("docker-compose up -d --scale pebble=0");
    let line = "no certificate from https://pebble:14000/dir for stack.test: next try in 60 s";
    log_has(&site.project, line, FIRST_TRY);
    // Meanwhile the proxy redirects HTTP.
    assert_eq!(http::get("http://localhost/").unwrap().status, 308);

    // The CA comes up, and the next try succeeds.
    site.project.run("docker-compose up -d --no-recreate");
    site.wait_for_https(RENEWED);

    // The CA goes down: the certificate is still served.
    let client = site.client().unwrap();
    let before = site.handshake().unwrap();
    site.project.run("docker-compose stop --timeout 1 pebble");
    let certbot = site.project.container("certbot");
    let renew = ["exec", &certbot, "certbot", "renew", "--force-renewal"];
    let error = output(Command::new("docker").args(renew)).expect_err("no CA answers");
    assert!(error.contains("pebble"), "{error}");
    site.project.run("docker-compose restart certbot");
    assert_eq!(site.handshake_as(client).unwrap(), before);
    let (code, took) = stop(&certbot);
    assert_eq!(code, "0", "it ends by itself");
    assert!(took.as_secs() < 5, "{took:?}");
}

/// The CA refuses, because the host name does not resolve.
fn refuses(tools: Tools) {
    let site = Site::new(tools, HTTPS);
    let site = site.with("DOMAIN", "elsewhere.test");
    site.project.run("docker-compose build");
    site.project.run("docker-compose up -d");
    log_has(
        &site.project,
        "for elsewhere.test: next try in 60 s",
        FIRST_TRY,
    );
    log_has(&site.project, "Some challenges have failed", FIRST_TRY);
    // The pause doubles.
    log_has(
        &site.project,
        "for elsewhere.test: next try in 120 s",
        Duration::from_secs(60) + FIRST_TRY,
    );
    assert_eq!(http::get("http://localhost/").unwrap().status, 308);
}

/// Asserts that no request over HTTPS is lost while something happens, and that shares are equal afterwards.
#[track_caller]
fn under_load(site: &Site, case: &str, happens: impl FnOnce()) {
    let load = Load::start(443, site.requests());
    happens();
    let settled = load.go_on(SETTLED);
    let report = load.stop();
    report.assert_nothing_lost(&format!("over HTTPS, {case}"), CHANGED);
    report.assert_equal_shares(&site.project.host_names("api"), settled);
}

fn nothing_lost(site: &Site) {
    let project = &site.project;
    let proxy = project.container("proxy");
    let scale = |replicas: usize| {
        project.run(&format!(
            "docker-compose up -d --no-recreate --scale api={replicas}"
        ));
    };
    for replicas in [5, 1, 3] {
        under_load(site, &format!("scaled to {replicas}"), || scale(replicas));
    }
    under_load(site, "one killed", || {
        let victim = project.containers("api").into_iter().next().expect("three");
        docker(&["kill", &victim]);
    });
    scale(2);
    under_load(site, "proxy reloaded", || {
        docker(&["exec", &proxy, "nginx", "-s", "reload"]);
    });
    under_load(site, "a new version", || {
        project.run(
            "printf 'FROM hello-api:stack\\nLABEL test=https\\n' | docker build -t hello-api:stack -",
        );
        project.run("docker-compose up -d --wait --no-recreate --scale api=4 api");
        project.run("docker-compose up -d --scale api=2");
    });
    assert_eq!(project.container("proxy"), proxy, "the proxy is the same");
    project.run("docker-compose build api");
    // HTTP/2, too: one connection with many requests through a reload.
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let urls = format!("'https://{HOST}/api/hello?[1-3000]'");
            let format = "'%{http_version} %{http_code}\\n'";
            site.curl(&format!(
                "--http2 --output /dev/null --write-out {format} {urls}"
            ))
        });
        docker(&["exec", &proxy, "nginx", "-s", "reload"]);
        let answers = client.join().unwrap();
        assert_eq!(answers.matches("2 200\n").count(), 3000, "{answers}");
    });
}
