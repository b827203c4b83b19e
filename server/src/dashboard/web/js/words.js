// Core: the words for states, steps, warnings and conclusions: what the command line says, in the same words. A kind
// that this page does not know is shown by its name. Touches nothing.

import { bytes } from "./format.js";

// The states of a machine, in the order of its way.
export const MACHINE_STATES = ["failed", "deploying", "discovered", "inspected", "approved", "deployed", "rejected", "retired"];

// The states of a job, in the order in which they are drawn.
export const JOB_STATES = ["deployed", "written", "running", "ordered", "failed", "refused", "cancelled"];

// The steps of a job, in the order of a machine's way, each with what happens in it.
export const STEPS = {
  "power-on": "its firmware asks for a network boot",
  loader: "drivers and network come up",
  inspect: "it reports its hardware",
  decide: "the server looks for an order",
  tailor: "plan and agent are made for it",
  agent: "it fetches and starts its agent",
  join: "it joins the swarm",
  gather: "it waits for other machines",
  transfer: "chunks come in and are written",
  verify: "the disk is read back and compared",
  personalise: "hostname, keys and user-data are written",
  seal: "the first MiB is written last",
  linger: "it serves others until it is released",
  reboot: "it restarts into its OS",
  confirm: "the OS calls home",
};

// What is on a disk, in words.
export const CONTENTS = {
  blank: "blank",
  bootable: "bootable",
  partitioned: "partitioned",
  data: "with data",
  member: "part of an array",
  "bootable-member": "bootable, part of an array",
  unreadable: "unreadable",
};

// What slows a machine down.
export const BOTTLENECKS = { net: "network", disk: "disk", cpu: "processor" };

// What bytes on a line are for.
export const KINDS = {
  chunks: "image",
  boot_files: "boot files",
  bundle: "agents",
  manifest: "manifests",
  answers: "answers",
  control: "swarm control",
  tftp: "TFTP",
  dhcp: "DHCP",
};

const place = (partition) => (partition === 0 ? "the whole" : `partition ${partition}`);

// What of an image a firmware would boot.
export function boots(trait) {
  switch (trait?.boots) {
    case "yes": return "yes";
    case "no-code": return "no: its first sector holds no boot code";
    case "no-place": return "no: its GPT has no BIOS boot partition";
    case "no-partition": return "no: it has no EFI system partition";
    case "no-loader": return "no: its EFI system partition holds no EFI/BOOT/BOOTX64.EFI";
    case "unreadable": return `unknown: its EFI system partition cannot be read: ${trait.why}`;
    default: return "not looked at";
  }
}

// Whether cloud-init in an image would use what it is given.
export function cloudInit(trait) {
  switch (trait?.found) {
    case "yes": return "found";
    case "disabled": return `switched off by ${trait.file}`;
    case "elsewhere": return `does not look for NoCloud: ${trait.file} lists only ${trait.sources.join(", ")}`;
    case "no": return "not found";
    default: return "unknown: its root file system is not one that is read";
  }
}

// A warning of a dry run as a sentence, with the word that accepts it where it refuses the machine.
export function warning(it) {
  switch (it.warning) {
    case "hardware-unknown": return { text: "its hardware is not known yet: the disk is chosen by the rule when it first reports" };
    case "unseen-data": return { accept: "data", text: `its hardware was not known when it was ordered for, and nobody was shown what would be erased: ${it.disk}` };
    case "no-uefi-boot": return { text: `the machine has UEFI firmware; whether the image boots there: ${boots(it.why)}` };
    case "no-bios-boot": return { text: `the machine has a BIOS; whether the image boots there: ${boots(it.why)}` };
    case "no-cloud-init": return { text: `hostname, keys and user-data may be lost, and no call home come; cloud-init in the image: ${cloudInit(it.why)}` };
    case "other-disk-boots": return { accept: "other-disk", text: `another disk would boot (${it.disk}): clear or detach it, or put the target first in the BIOS's setup` };
    case "other-disk-may-boot": return { text: `another disk would boot (${it.disk}): put the target first in the firmware's boot order` };
    case "not-first-disk": return { accept: "other-disk", text: `${it.first} comes before the target, and a BIOS starts its first disk` };
    case "other-seed": return { accept: "other-disk", text: `${place(it.partition)} of ${it.disk} is labelled ${it.label}, and cloud-init may take that instead` };
    case "same-uuid": return { accept: "other-disk", text: `${place(it.partition)} of ${it.disk} has the UUID ${it.uuid} as the image has, so either may become the root` };
    case "user-data-ignored": return { text: `${it.always ? "cloud-init takes" : "older versions of cloud-init take"} nothing of user-data that begins with ${it.first}` };
    case "user-data-broken": return { text: `cloud-init takes nothing of the user-data: ${it.why}` };
    case "user-data-disables": return { text: "the user-data names cloud-init.disabled: from its next start the OS reads no CIDATA" };
    case "user-data-network": return { text: "cloud-init takes no network from user-data: it is set up for the card that booted" };
    case "call-home-off": return { accept: "unconfirmed", text: `the user-data switches the call home off (${it.by}), so the order cannot be confirmed` };
    case "call-home-bare": return { text: "the user-data switches the scripts of vendor-data off, so the call home cannot say which disk it comes from" };
    default: return { text: String(it.warning ?? it) };
  }
}

// What a profile says of each machine, as the command line does: all but the image and the machines.
export function wishWords(it) {
  const hook = (one) => `hook ${one.name} (${one.timeout_seconds} s${one.on_failure === "continue" ? ", may fail" : ""})`;
  const parts = [
    it.disk && `disk ${it.disk}`,
    it.personalise ? it.hostname && `hostname ${it.hostname}` : "not personalised",
    it.ssh_keys && (it.ssh_keys === 1 ? "1 SSH key" : `${it.ssh_keys} SSH keys`),
    it.user_data_bytes !== null && `user-data of ${bytes(it.user_data_bytes)}`,
    ...it.hooks.map(hook),
    it.hook_root !== "auto" && `hooks in ${it.hook_root}`,
    !it.confirm && it.personalise && "no call home",
    { "power-off": "then it is switched off", stay: "then it stays on" }[it.at_end] ?? "then it restarts",
  ];
  return parts.filter(Boolean).join("; ");
}

// What is concluded of a silent machine: what it did last, and the cure.
export function silence(it) {
  switch (it?.silence) {
    case undefined: return null;
    case "program-not-started":
      if (it.secure) return { cause: `it took ${it.file} and did not start it: Secure Boot is on`, cure: "switch Secure Boot off in the firmware's setup" };
      return it.uefi
        ? { cause: `it took ${it.file} and did not start it: most likely Secure Boot is on`, cure: "switch it off in the firmware's setup; otherwise the program is not for this firmware, or memory is short" }
        : { cause: `it took ${it.file}, which then asked for nothing`, cure: "update the network card's firmware, or try another card; memory may be short" };
    case "program-not-fetched": return { cause: `it gave up fetching ${it.file}`, cure: "is its line good, and do packets of 1500 bytes come through?" };
    case "loader-not-fetched":
      return it.file
        ? { cause: `nothing came through after ${it.file}`, cure: "is its line good, and has it 512 MiB of memory?" }
        : { cause: "it was told to load the kernel, which did not come through", cure: "is its line good, and does the boot program reach TCP port 8069?" };
    case "loader-silent":
      return it.memory_bytes && it.memory_bytes < 400 * 2 ** 20
        ? { cause: `it took the loader and did not report: it has ${Math.floor(it.memory_bytes / 2 ** 20)} MiB of memory`, cure: "it needs 512 MiB" }
        : { cause: "it took the loader and did not report", cure: "its console says why: little memory, a network card without a driver in the boot kit, a tagged VLAN, or no source of random numbers" };
    case "own-disk": return { cause: "it started its own disk without asking the network", cure: "put network boot first in the firmware's boot order, and restart it" };
    case "disk-does-not-boot": return { cause: `it was sent to its disk ${it.times} times and asked for a boot again`, cure: "does the image boot with this firmware, and does the firmware start this disk?" };
    case "no-call":
      return it.other
        ? { cause: `an OS on it got an address and does not call home: most likely ${it.other} started`, cure: "put the disk that was written first in the firmware's boot order" }
        : { cause: "its OS got an address and does not call home", cure: "the image has no cloud-init, leaves out NoCloud, or a firewall is between" };
    case "not-seen": return { cause: "nothing was seen of it since it was written", cure: "it is switched off or hangs, its OS does not boot, or asks for no address on this network" };
    default: return { cause: String(it.silence), cure: "" };
  }
}

// Why a machine needs a person, and what to do: from its job's failure or from what is concluded about it.
export function trouble(machine) {
  const job = machine.job;
  const note = silence(machine.note ?? job?.note);
  if (machine.doubts?.length) {
    const doubt = machine.doubts[0];
    return { cause: `its identity is in doubt: it shows ${doubt.shared.join(" and ")} of ${doubt.other}`, cure: "merge it into that machine, or release it if it is another one" };
  }
  if (machine.state === "failed") {
    const cause = job?.cause ?? note?.cause ?? "its last job failed";
    return { cause, cure: note?.cure || cure(cause, job) };
  }
  return note && note.cause ? note : null;
}

// What a job that was not begun waits for.
export function waits(job) {
  switch (job.waits?.for) {
    case "unfreeze": return "frozen";
    case "release": return "machine is held";
    case "identity": return "machine is in doubt";
    case "resume": return "paused";
    case "turn": return `its turn (${job.waits.most} at once)`;
    default: return "machine to come";
  }
}

// What helps against a cause of failure. The cause is the machine's own sentence; this finds the words that decide.
export function cure(cause, job) {
  if (job?.state === "refused") return "nothing was written; correct the order or the machine, then retry";
  const rules = [
    [/no answer|unreachable|timed? ?out|connection|refused by/i, "look at its cable and switch port, then retry"],
    [/I\/O error|medium|bad sector|read-?only|does not keep|verify/i, "the disk does not keep what is written: replace it, then retry"],
    [/matches? (no|more|several|two)|no disk|disk rule/i, "look at its disks, and order it with a rule that matches exactly one"],
    [/space|too small|does not fit|larger than/i, "choose a larger disk, or a smaller image"],
    [/memory/i, "give it more memory: 512 MiB is the least"],
    [/other disk|part of an array|bootable/i, "look at what is on its disks, detach or accept it, then retry"],
  ];
  return rules.find(([sign]) => sign.test(cause))?.[1] ?? "its log says more; when that is mended, retry";
}

// An event of the log behind its step's name.
export function happened(event, percent) {
  switch (event.kind) {
    case "started": return "started";
    case "progress": return `${percent(event.done, event.total)} %`;
    case "note": return event.text;
    case "done": return event.text ? `done: ${event.text}` : "done";
    case "failed": return `${event.last ? "FAILED" : "FAILED, will be tried again"}: ${event.cause}`;
    default: return event.text ?? event.kind;
  }
}
