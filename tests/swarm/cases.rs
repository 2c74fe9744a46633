//! No request is lost while the swarm is changed and while nodes die.

use std::time::{Duration, Instant};

use harness::{load::Load, tools::Tools, wait};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    on_the_swarm,
    swarm::{Machine, REPLICAS, Swarm},
};

/// Slowest response during a planned change, and when a node is lost.
const CHANGED: Duration = Duration::from_millis(500);
const LOST: Duration = Duration::from_millis(2500);

/// Within this time of a change every replica gets its equal share again: the machines tell each
/// other, and then the proxies ask. A replica that has failed is passed over for 3 s.
const SETTLED: Duration = Duration::from_secs(4);

/// Within this time Prometheus has found and asked the replicas that there are: a look at DNS, a scrape,
/// and what the swarm takes to tell its nodes.
const SCRAPED: Duration = Duration::from_secs(40);

/// Time of six health checks of a proxy.
const FORGOTTEN: Duration = Duration::from_secs(70);

/// Time for a swarm to elect a leader.
const NO_LEADER: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    vec![
        on_the_swarm("every_machine_gives_equal_shares", equal_shares),
        on_the_swarm("the_stack_has_no_rights_to_spare", hardened),
        on_the_swarm("the_registry_is_asked_for", no_registry),
        on_the_swarm("every_replica_is_scraped", scraped),
        on_the_swarm("changed_rules_are_used_after_a_deploy", changed_rules),
        on_the_swarm("proxies_outlive_the_front_end", no_front_end),
        on_the_swarm("nothing_is_lost_when_scaled", scaled),
        on_the_swarm("nothing_is_lost_when_updated", updated),
        on_the_swarm(
            "a_version_that_is_never_healthy_is_rolled_back",
            never_healthy,
        ),
        on_the_swarm("a_version_that_exits_is_rolled_back", exits),
        on_the_swarm("nothing_is_lost_when_a_machine_is_drained", drained),
        on_the_swarm("nothing_is_lost_when_a_machine_is_killed", killed),
        on_the_swarm("nothing_is_lost_when_the_leader_is_killed", leader_killed),
        on_the_swarm("nothing_is_lost_when_a_machine_is_cut_off", cut_off),
    ]
}

/// Asserts that clients of `machine` lose nothing while something happens, and that shares are equal afterwards.
#[track_caller]
fn under_load(
    swarm: &Swarm,
    case: &str,
    machine: &Machine,
    limit: Duration,
    happens: impl FnOnce(),
) {
    let load = Load::start_in(machine.container(), 80, "/api/hello");
    happens();
    let settled = load.go_on(SETTLED);
    let report = load.stop();
    report.assert_nothing_lost(case, limit);
    report.assert_equal_shares(&swarm.names(), settled);
}

fn equal_shares(swarm: &Swarm) {
    for machine in swarm.machines() {
        let case = format!("{REPLICAS} replicas, from {}", machine.name);
        under_load(swarm, &case, machine, Duration::MAX, || ());
    }
}

fn hardened(swarm: &Swarm) {
    for machine in swarm.machines() {
        let containers = machine.must(
            "docker inspect $(docker ps --quiet --filter label=com.docker.stack.namespace=hello)",
        );
        let containers: Vec<Value> = serde_json::from_str(&containers).unwrap();
        // Two replicas, a proxy, and on two of three nodes a front-end.
        assert!(
            containers.len() >= 3,
            "{} on {}",
            containers.len(),
            machine.name
        );
        for container in containers {
            let (name, host) = (&container["Name"], &container["HostConfig"]);
            assert_eq!(host["ReadonlyRootfs"], true, "{name}");
            assert_eq!(host["CapDrop"], json!(["ALL"]), "{name}");
            assert_eq!(host["CapAdd"], Value::Null, "{name}");
            let log = json!({"max-size": "10m", "max-file": "3"});
            assert_eq!(host["LogConfig"]["Config"], log, "{name}");
            for limit in ["Memory", "PidsLimit"] {
                let value = host[limit].as_u64();
                assert!(value > Some(0), "{name} has no limit: {limit}");
            }
            let user = container["Config"]["User"].as_str();
            assert!(
                matches!(user, Some("101:101" | "65534:65534")),
                "{name}: {user:?}"
            );
        }
        let internal = "docker network inspect hello_api hello_pages --format '{{.Internal}}'";
        let on_machine = machine.must(internal);
        assert!(on_machine.lines().eq(["true", "true"]), "{on_machine}");
    }
}

fn no_registry(swarm: &Swarm) {
    let [one, ..] = swarm.machines() else {
        panic!("no machine")
    };
    let deploy = "docker stack deploy --compose-file swarm.yml hello";
    let error = one.run(deploy).unwrap_err();
    let expected = "required variable REGISTRY is missing a value: expected the registry";
    assert!(error.contains(expected), "{error}");
}

/// Prometheus, started by the README, scrapes every replica on every node.
fn scraped(swarm: &Swarm) {
    let [one, ..] = swarm.machines() else {
        panic!("no machine")
    };
    for replicas in [9, REPLICAS] {
        one.must(&format!("docker service scale hello_api={replicas}"));
        let query = "docker exec $(docker ps --quiet --filter name=hello_prometheus) \
                     promtool query instant http://localhost:9090 \
                     'count(up{job=\"api\"} == 1)'";
        wait::every(Duration::from_secs(1), SCRAPED, || {
            let text = one.run(query)?;
            match text.starts_with(&format!("{{}} => {replicas} @")) {
                true => Ok(()),
                false => Err(text),
            }
        });
    }
}

/// A changed rule is in the image, so that `docker stack deploy` rolls it out.
fn changed_rules(swarm: &Swarm) {
    let [one, ..] = swarm.machines() else {
        panic!("no machine")
    };
    let image = format!("{}/hello-prometheus:stack", swarm.local_registry());
    let change = "RUN sed -i s/NoReplica/NobodyThere/ /etc/prometheus/alerts.yml";
    for line in [
        format!("printf 'FROM {image}\n{change}\n' | docker build --tag {image} -"),
        format!("docker push {image}"),
    ] {
        Tools::Current.run(".", &line);
    }
    one.must(
        "REGISTRY=registry:5000 VERSION=1 docker stack deploy --with-registry-auth --detach=true \
         --compose-file swarm.yml --compose-file swarm-metrics.yml hello",
    );
    let rule = "docker exec $(docker ps --quiet --filter name=hello_prometheus) \
                grep NobodyThere /etc/prometheus/alerts.yml";
    wait::every(Duration::from_secs(1), SCRAPED, || one.run(rule));
}

/// Without a front-end there are no pages, but the proxies must stay for the API.
fn no_front_end(swarm: &Swarm) {
    let [one, ..] = swarm.machines() else {
        panic!("no machine")
    };
    let proxy = one.must("docker ps --quiet --filter name=hello_proxy");
    let checks = || {
        let template = "{{range .State.Health.Log}}{{.Start.Unix}} {{end}}";
        let text = one.run(&format!(
            "docker inspect --format '{template}' {}",
            proxy.trim()
        ))?;
        Ok::<Vec<String>, String>(text.split_whitespace().map(str::to_owned).collect())
    };
    under_load(swarm, "no front-end", one, CHANGED, || {
        one.must("docker service scale hello_front-end=0");
        // Until the engine has forgotten the checks before, of which it keeps five: it takes three that
        // fail to call a container unhealthy.
        let before = checks().unwrap();
        wait::every(Duration::from_secs(1), FORGOTTEN, || {
            let now = checks()?;
            match now.len() == 5 && now.iter().all(|check| !before.contains(check)) {
                true => Ok(()),
                false => Err(format!("{now:?}")),
            }
        });
    });
    one.must("docker service scale hello_front-end=2");
    let same = one.must("docker ps --quiet --filter name=hello_proxy --filter health=healthy");
    assert_eq!(same, proxy, "the proxy is the same, and healthy");
}

fn scaled(swarm: &Swarm) {
    let [one, ..] = swarm.machines() else {
        panic!("no machine")
    };
    for replicas in [12, 3] {
        under_load(
            swarm,
            &format!("scaled to {replicas}"),
            one,
            CHANGED,
            || {
                one.must(&format!("docker service scale hello_api={replicas}"));
            },
        );
    }
}

fn updated(swarm: &Swarm) {
    let [one, ..] = swarm.machines() else {
        panic!("no machine")
    };
    let version = swarm.push_version("LABEL test=updated");
    under_load(swarm, "updated", one, CHANGED, || {
        swarm.deploy(&version);
        swarm.wait_for_update("completed", &version);
    });
}

/// Asserts that a broken version, with one more line in its Dockerfile, is rolled back.
#[track_caller]
fn rolled_back(swarm: &Swarm, case: &str, line: &str) {
    let [one, ..] = swarm.machines() else {
        panic!("no machine")
    };
    let version = swarm.push_version(line);
    let before = swarm.names();
    under_load(swarm, case, one, CHANGED, || {
        swarm.deploy(&version);
        swarm.wait_for_update("rollback_completed", "1");
    });
    let tasks = one.must("docker service ps hello_api --format '{{.Image}}'");
    assert!(
        tasks.contains(&format!("hello-api:{version}")),
        "it was tried: {tasks}"
    );
    assert_eq!(swarm.names(), before, "the replicas that ran still do");
}

fn never_healthy(swarm: &Swarm) {
    let line = r#"HEALTHCHECK --interval=1s --retries=3 CMD ["/api", "no-such-command"]"#;
    rolled_back(swarm, "a version that is never healthy", line);
}

fn exits(swarm: &Swarm) {
    rolled_back(
        swarm,
        "a version that exits",
        r#"ENTRYPOINT ["/api", "no-such-command"]"#,
    );
}

fn drained(swarm: &Swarm) {
    let [one, two, three] = swarm.machines() else {
        panic!("three machines")
    };
    under_load(swarm, "a machine drained", one, CHANGED, || {
        one.must(&format!(
            "docker node update --availability drain {}",
            three.name
        ));
        swarm.wait_for_replicas(REPLICAS, &[one, two]);
    });
    one.must(&format!(
        "docker node update --availability active {}",
        three.name
    ));
}

/// Restarts a killed node and asserts that shares are equal again.
#[track_caller]
fn returns(swarm: &Swarm, victim: &Machine, machine: &Machine) {
    under_load(swarm, "it comes back", machine, Duration::MAX, || {
        swarm.start(victim);
        swarm.put_in_order();
    });
    equal_shares(swarm);
}

fn killed(swarm: &Swarm) {
    let (leader, [machine, victim]) = swarm.roles();
    let killed = Instant::now();
    under_load(swarm, "a machine killed", machine, LOST, || {
        swarm.kill(victim);
        swarm.wait_for_replicas(REPLICAS, &[leader, machine]);
        println!("its replicas run elsewhere after {:?}", killed.elapsed());
    });
    returns(swarm, victim, machine);
}

fn leader_killed(swarm: &Swarm) {
    let (leader, [machine, other]) = swarm.roles();
    // The maximum for two nodes.
    let replicas = 8;
    under_load(swarm, "the leader killed", machine, LOST, || {
        swarm.kill(leader);
        wait::until(NO_LEADER, || {
            other.run(&format!(
                "docker service scale --detach hello_api={replicas}"
            ))
        });
        swarm.wait_for_replicas(replicas, &[machine, other]);
    });
    returns(swarm, leader, machine);
}

fn cut_off(swarm: &Swarm) {
    let (leader, [machine, victim]) = swarm.roles();
    under_load(swarm, "a machine cut off, and back", machine, LOST, || {
        swarm.cut_off(victim);
        swarm.wait_for_replicas(REPLICAS, &[leader, machine]);
        swarm.connect(victim);
        swarm.wait_for_replicas(REPLICAS, &[leader, machine, victim]);
    });
    swarm.put_in_order();
    equal_shares(swarm);
}
