//! Drives the server's image swarm in the world: gives it events, carries out its effects. Touches lines and messages.

use common::id::DeploymentId;
use common::limits::CHUNK_BYTES;
use common::swarm::splitmix::SplitMix64;
use common::wire::call_home::SeedMark;
use common::wire::swarm::{Personality, ToServer};
use server::swarm::image_swarm::{Hello, ImageSwarm, Out, WireImage};
use server::swarm::inject::SENDING_PER_SITE;
use server::swarm::release::Linger;
use server::swarm::{Admission, MachinePart, Part};

use crate::lines::Holder;
use crate::machine::Machine;
use crate::names::{IMAGE, full, job};
use crate::post::Message;
use crate::world::World;

fn admission(number: usize, machine: &Machine) -> Admission {
    let name = format!("m{number}");
    Admission {
        key: machine.key,
        image: IMAGE,
        name: name.clone(),
        site: format!("{:03}", machine.spec.site),
        part: Part::Machine(Box::new(MachinePart {
            deployment: DeploymentId(1),
            job: job(number),
            personality: Personality {
                hostname: name,
                ssh_keys: vec![],
                user_data: None,
                instance_id: String::new(),
                confirm_url: None,
                seed_mark: SeedMark::default(),
                boot_mac: None,
                hooks: None,
            },
            gather: None,
        })),
    }
}

impl World {
    /// Admits every machine with an approved job, at the start and again when the server is back.
    pub(crate) fn admit_all(&mut self) {
        let now = self.time();
        for (number, machine) in self.machines.iter().enumerate() {
            self.server.swarm.admit(admission(number, machine), now);
        }
    }

    pub(crate) fn server_comes_and_goes(&mut self) {
        let (from, to) = self.server.gone;
        let lives = self.now < from || self.now >= to;
        if lives == self.server.lives {
            return;
        }
        self.server.lives = lives;
        if lives {
            // The restarted server remembers nothing of the swarm but who may be in it.
            self.server.rng_seed = SplitMix64::new(self.server.rng_seed).next_u64();
            self.server.swarm = ImageSwarm::new(IMAGE, Linger::default(), self.server.rng_seed);
            self.admit_all();
            return;
        }
        self.server.granted.clear();
        self.server.progress.clear();
        self.post.lose(Message::of_server);
        for at in 0..self.machines.len() {
            self.cut_off(at, Holder::Server, "the server is switched off");
        }
    }

    /// The server loses machine `at`, which was switched off.
    pub(crate) fn server_loses(&mut self, at: usize) {
        let (agent, now) = (self.machines[at].key, self.time());
        self.server.granted.retain(|(to, _)| *to != at);
        if self.server.lives {
            let out = self.server.swarm.left(agent, "it was switched off".to_owned(), now);
            self.carry_out_for_server(out);
        }
    }

    /// A message of machine `from` arrives at the server.
    pub(crate) fn server_hears(&mut self, from: usize, word: ToServer) {
        let (agent, now) = (self.machines[from].key, self.time());
        let swarm = &mut self.server.swarm;
        let out = match word {
            ToServer::Hello { addresses, held, started, deltas, .. } => {
                let wire_bytes = u64::from(self.chunks) * u64::from(CHUNK_BYTES);
                let image = WireImage { wanted: full(self.chunks), wire_bytes };
                swarm.hello(agent, Hello { addresses, held, started, deltas }, image, now)
            }
            word => swarm.message(agent, word, now),
        };
        self.carry_out_for_server(out);
    }

    pub(crate) fn server_tick(&mut self) {
        if !self.server.lives {
            return;
        }
        let now = self.time();
        for (to, bytes) in std::mem::take(&mut self.server.progress) {
            let agent = self.machines[to].key;
            // Fractions of a byte are lost; the count only shows progress and speed.
            let out = self.server.swarm.sent(agent, bytes as u64, now);
            self.carry_out_for_server(out);
        }
        let out = self.server.swarm.tick(now);
        self.carry_out_for_server(out);
    }

    fn carry_out_for_server(&mut self, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Tell(agent, word) => {
                    let to = self.numbers[&agent];
                    self.post.send(self.now + self.delay(Holder::Server), Message::ToAgent { to, word });
                }
                Out::Grant(agent, chunks) => {
                    let to = self.numbers[&agent];
                    self.server.granted.extend(chunks.into_iter().map(|chunk| (to, chunk)));
                }
                Out::Withdraw(agent, chunks) => {
                    let to = self.numbers[&agent];
                    for chunk in chunks {
                        self.server.granted.remove(&(to, chunk));
                    }
                }
                // For the fleet, the node and the image store, which are not in this world.
                Out::Fact(_) | Out::Forget(_) | Out::Mend(..) => {}
            }
        }
    }

    pub(crate) fn serve_sites(&mut self) {
        for site in 0..self.server.ready.len() {
            if !std::mem::take(&mut self.server.ready[site]) {
                continue;
            }
            while self.server.sending[site] < SENDING_PER_SITE {
                let Some((to, chunk)) = self.server.queues[site].pop_front() else { break };
                if self.server.granted.contains(&(to, chunk)) {
                    self.server.sending[site] += 1;
                    self.lines.begin(Holder::Server, to, chunk);
                    self.coming_changes(to);
                } else {
                    let answer = Message::Unavailable { holder: Holder::Server, to, chunk };
                    self.post.send(self.now + self.delay(Holder::Server), answer);
                }
            }
        }
    }
}
