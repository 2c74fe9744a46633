//! A swarm of three nodes and a registry, in containers of this machine's engine, which builds the images.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use harness::{
    container::{Container, ENGINE_OPTIONS, Network},
    readme::Step,
    tools::{Tools, docker, output, root, unique},
    wait,
};

/// Replicas of the API in swarm.yml.
pub const REPLICAS: usize = 6;

/// Version of the images after the README.
const VERSION: &str = "1";

/// Address of the registry on the nodes.
const REGISTRY: &str = "registry:5000";

/// Time for the swarm to reach a state.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time between two checks, each of which starts processes.
const INTERVAL: Duration = Duration::from_millis(500);

/// A node of the swarm.
pub struct Machine {
    pub name: &'static str,
    /// Fixed, as required for a node of a swarm.
    address: String,
    container: Container,
}

impl Machine {
    fn start(name: &'static str, address: String, network: &Network) -> Self {
        let options = [
            "--hostname",
            name,
            "--network-alias",
            name,
            "--network",
            &network.name,
            "--ip",
            &address,
            "--volume=/var/lib/docker",
            // Empty after a restart, as on a real machine.
            "--tmpfs=/run",
        ];
        // The cgroups are those of this machine, under a name by which Drop finds them.
        let command = [
            "dockerd",
            // Required for a registry without TLS.
            "--insecure-registry",
            REGISTRY,
            "--cgroup-parent",
            &unique(name),
        ];
        let container = Container::run_command(
            name,
            MACHINE,
            &[&ENGINE_OPTIONS[..], &options].concat(),
            &command,
        );
        let machine = Self {
            name,
            address,
            container,
        };
        machine.wait_for_engine();
        machine
    }

    fn wait_for_engine(&self) {
        wait::every(INTERVAL, PATIENCE, || self.run("docker version").map(drop));
    }

    /// The name of its container.
    pub fn container(&self) -> &str {
        &self.container.name
    }

    /// Runs a command line on the node.
    ///
    /// # Errors
    ///
    /// When it fails, with what it wrote.
    pub fn run(&self, line: &str) -> Result<String, String> {
        let exec = ["exec", self.container(), "sh", "-c", line];
        let text = output(Command::new("docker").args(exec));
        text.map_err(|error| format!("{}$ {line}\n{error}", self.name))
    }

    /// Runs a command line on the node and returns its output.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn must(&self, line: &str) -> String {
        self.run(line).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Healthy API replicas on this node: container name to image.
    fn replicas(&self) -> Result<BTreeMap<String, String>, String> {
        let text = self.run(
            "docker ps --filter label=com.docker.swarm.service.name=hello_api \
             --filter health=healthy --format '{{.ID}} {{.Image}}'",
        )?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        Ok(lines
            .map(|(id, image)| (id.to_owned(), image.to_owned()))
            .collect())
    }
}

/// Image of the nodes and of the registry.
const MACHINE: &str = "acceptance-machine";

pub struct Swarm {
    // Dropped in this order: the containers before their network.
    machines: Vec<Machine>,
    registry: Container,
    network: Network,
    versions: AtomicUsize,
}

impl Swarm {
    /// Starts three nodes and runs the commands of the README for several machines.
    pub fn from_readme() -> Self {
        Tools::Current.run(
            "tests/swarm",
            &format!("docker build --tag {MACHINE} machine"),
        );
        let (network, prefix) = Network::with_prefix("swarm");
        let registry = Container::run_command(
            "registry",
            MACHINE,
            &[
                "--network",
                &network.name,
                "--network-alias",
                "registry",
                "--publish",
                "127.0.0.1::5000",
            ],
            &["docker-registry", "serve", "/etc/registry.yml"],
        );
        let machines = [("node1", 11), ("node2", 12), ("node3", 13)]
            .map(|(name, last)| Machine::start(name, format!("{prefix}{last}"), &network));
        let swarm = Self {
            machines: machines.into(),
            registry,
            network,
            versions: AtomicUsize::new(10),
        };
        for machine in &swarm.machines {
            let folder = root().join("deploy").display().to_string();
            docker(&[
                "cp",
                &format!("{folder}/."),
                &format!("{}:/root/", machine.container()),
            ]);
        }
        swarm.follow_readme();
        swarm
    }

    fn follow_readme(&self) {
        let text = fs::read_to_string(root().join("deploy/README.md")).unwrap();
        let mut steps = Step::all(&text);
        steps.retain(|step| !step.machine.is_empty());
        assert!(
            !steps.is_empty(),
            "deploy/README.md has no block for several machines"
        );
        // Exported variables stay on their machine.
        let mut exports: BTreeMap<String, String> = BTreeMap::new();
        let mut token = String::new();
        for step in &steps {
            let exports = exports.entry(step.machine.clone()).or_default();
            if step.line.starts_with("export ") {
                *exports += &format!("{}; ", step.line);
                continue;
            }
            let line = format!(
                "{exports}{}",
                step.line.replace("SWMTKN-1-[..]", token.trim())
            );
            // A service that was just started may not respond yet.
            let asks = ["curl ", "docker exec "]
                .iter()
                .any(|asks| step.line.starts_with(asks));
            let patience = if asks { PATIENCE } else { Duration::ZERO };
            let actual = wait::every(INTERVAL, patience, || {
                let actual = self.type_on(&step.machine, &line)?;
                step.check(&actual).map(|()| actual)
            });
            if step.line.contains("join-token") {
                token = actual;
            }
        }
    }

    /// Runs a command line on a machine by name. `builder` is this machine.
    fn type_on(&self, machine: &str, line: &str) -> Result<String, String> {
        if machine == "builder" {
            let line = line.replace(REGISTRY, &self.local_registry());
            return output(&mut Tools::Current.command(&root(), &line));
        }
        let named = self.machines.iter().find(|named| named.name == machine);
        let named =
            named.ok_or_else(|| format!("{machine}: expected builder, node1, node2 or node3"))?;
        named.run(line)
    }

    /// Address of the registry on this machine, where it needs no TLS.
    pub fn local_registry(&self) -> String {
        let published = docker(&["port", &self.registry.name, "5000/tcp"]);
        let port = published.rsplit(':').next().expect("a port");
        format!("localhost:{port}")
    }

    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The leader and the two other nodes.
    pub fn roles(&self) -> (&Machine, [&Machine; 2]) {
        let (leader, others): (Vec<_>, Vec<_>) = self.machines.iter().partition(|machine| {
            let status = "docker node inspect self --format '{{.ManagerStatus.Leader}}'";
            machine.must(status).trim() == "true"
        });
        match (&leader[..], &others[..]) {
            ([leader], [one, other]) => (*leader, [*one, *other]),
            _ => panic!("{} leaders", leader.len()),
        }
    }

    /// Healthy replicas on reachable nodes: container name to node.
    pub fn replicas(&self) -> BTreeMap<String, &'static str> {
        let mut all = BTreeMap::new();
        for machine in &self.machines {
            let replicas = machine.replicas().unwrap_or_default();
            all.extend(replicas.into_keys().map(|id| (id, machine.name)));
        }
        all
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.replicas().into_keys().collect()
    }

    /// Waits for this number of healthy replicas on these nodes.
    #[track_caller]
    pub fn wait_for_replicas(&self, count: usize, machines: &[&Machine]) {
        wait::every(INTERVAL, PATIENCE, || {
            let replicas = self.replicas();
            let there = |name| machines.iter().any(|machine| machine.name == name);
            match replicas.values().filter(|name| there(**name)).count() == count {
                true => Ok(()),
                false => Err(format!("{replicas:?}")),
            }
        });
    }

    /// Waits until all nodes are ready and active.
    #[track_caller]
    pub fn wait_for_machines(&self) {
        wait::every(INTERVAL, PATIENCE, || {
            for machine in &self.machines {
                let nodes =
                    machine.run("docker node ls --format '{{.Status}} {{.Availability}}'")?;
                if nodes.lines().collect::<Vec<_>>() != ["Ready Active"; 3] {
                    return Err(nodes);
                }
            }
            Ok(())
        });
    }

    /// Restores the deployed version, with equally many replicas on each node.
    #[track_caller]
    pub fn put_in_order(&self) {
        // A case that failed may have left one drained.
        for machine in &self.machines {
            let activate = format!("docker node update --availability active {}", machine.name);
            wait::every(INTERVAL, PATIENCE, || self.machines[0].run(&activate));
        }
        self.wait_for_machines();
        self.deploy(VERSION);
        self.wait_for_version(VERSION);
        let replicas = self.replicas();
        let share = REPLICAS / self.machines.len();
        let has_share = |machine: &Machine| {
            let there = replicas.values().filter(|name| **name == machine.name);
            there.count() == share
        };
        if !self.machines.iter().all(has_share) {
            // A swarm does not move replicas back to a node, but places new ones there.
            let least = self.machines.len();
            self.machines[0].must(&format!("docker service scale hello_api={least}"));
            self.deploy(VERSION);
            self.wait_for_version(VERSION);
        }
        for machine in &self.machines {
            wait::every(INTERVAL, PATIENCE, || {
                machine.run("curl --fail --silent --show-error localhost/api/hello")
            });
        }
    }

    /// Pushes a new version of the images. That of the API has one more line in its Dockerfile.
    #[track_caller]
    pub fn push_version(&self, line: &str) -> String {
        let version = self.versions.fetch_add(1, Ordering::Relaxed).to_string();
        let registry = self.local_registry();
        let (api, front_end) = (
            format!("{registry}/hello-api"),
            format!("{registry}/hello-front-end"),
        );
        for line in [
            format!(
                "printf 'FROM {api}:{VERSION}\n{line}\n' | docker build --tag {api}:{version} -"
            ),
            format!("docker tag {front_end}:{VERSION} {front_end}:{version}"),
            format!("docker push {api}:{version}"),
            format!("docker push {front_end}:{version}"),
        ] {
            Tools::Current.run(".", &line);
        }
        version
    }

    /// Deploys a version without waiting for it.
    #[track_caller]
    pub fn deploy(&self, version: &str) {
        self.machines[0].must(&format!(
            "REGISTRY={REGISTRY} VERSION={version} docker stack deploy --with-registry-auth \
             --detach=true --compose-file swarm.yml hello"
        ));
    }

    /// Waits until all healthy replicas have this version.
    #[track_caller]
    pub fn wait_for_version(&self, version: &str) {
        let image = format!("{REGISTRY}/hello-api:{version}");
        wait::every(INTERVAL, PATIENCE, || {
            let mut images = vec![];
            for machine in &self.machines {
                images.extend(machine.replicas()?.into_values());
            }
            // With a digest if the tag has moved.
            let is_version = |found: &String| found.split('@').next() == Some(&image);
            match images.len() == REPLICAS && images.iter().all(is_version) {
                true => Ok(()),
                false => Err(format!("{images:?}")),
            }
        });
    }

    /// Waits until an update of the API ends in this state and version.
    #[track_caller]
    pub fn wait_for_update(&self, end: &str, version: &str) {
        let expected = format!("{end} {REGISTRY}/hello-api:{version}@");
        wait::every(INTERVAL, PATIENCE, || {
            let update = self.machines[0].run(
                "docker service inspect hello_api --format \
                 '{{.UpdateStatus.State}} {{.Spec.TaskTemplate.ContainerSpec.Image}}'",
            )?;
            match update.starts_with(&expected) {
                true => Ok(()),
                false => Err(update),
            }
        });
        self.wait_for_version(version);
    }

    /// Kills a node with everything on it.
    pub fn kill(&self, machine: &Machine) {
        docker(&["kill", machine.container()]);
    }

    /// Restarts a node and waits until it has rejoined the swarm.
    pub fn start(&self, machine: &Machine) {
        docker(&["start", machine.container()]);
        machine.wait_for_engine();
        self.wait_for_machines();
    }

    /// Disconnects a node from the network.
    pub fn cut_off(&self, machine: &Machine) {
        docker(&[
            "network",
            "disconnect",
            &self.network.name,
            machine.container(),
        ]);
    }

    /// Reconnects a node and waits until it has rejoined the swarm.
    pub fn connect(&self, machine: &Machine) {
        docker(&[
            "network",
            "connect",
            "--alias",
            machine.name,
            "--ip",
            &machine.address,
            &self.network.name,
            machine.container(),
        ]);
        self.wait_for_machines();
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // What a machine ran has control groups of the engine below, which outlive it, the more so
        // when it was killed.
        for machine in &self.machines {
            let groups = format!(
                "docker swarm leave --force && find /sys/fs/cgroup -depth -type d \
                 -path '*/{}*' -exec rmdir {{}} +",
                machine.container()
            );
            if let Err(error) = machine.run(&groups) {
                eprintln!("{error}");
            }
        }
        // Untag the images of the registry, which is gone. By their digest where the tag has moved.
        let reference = format!("reference={}/*", self.local_registry());
        let format = "{{.Repository}} {{.Tag}} {{.Digest}}";
        let list = [
            "images",
            "--digests",
            "--filter",
            &reference,
            "--format",
            format,
        ];
        for image in docker(&list).lines() {
            let name = match image.split(' ').collect::<Vec<_>>()[..] {
                [name, "<none>", digest] => format!("{name}@{digest}"),
                [name, tag, _] => format!("{name}:{tag}"),
                _ => panic!("{image}: expected a name, a tag and a digest"),
            };
            if let Err(error) = output(Command::new("docker").args(["rmi", &name])) {
                eprintln!("docker rmi {name}: {error}");
            }
        }
    }
}
