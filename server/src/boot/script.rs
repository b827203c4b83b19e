//! Core: the text of the iPXE scripts that lead a machine to the loader or to its own disk. Touches `common`.
//!
//! Nothing that a machine says ever becomes part of a script: what a script needs of the machine it asks iPXE
//! for by `${...}`, and what the query holds is parsed into types that cannot carry a line. All scripts end in
//! the loader, in the machine's own disk, or in another try: a machine is never left at a prompt.

use std::net::{IpAddr, SocketAddr};

use common::id::Mac;
use common::trust::PublicKey;
use common::wire::http::{CMDLINE_KEY, CMDLINE_MAC, CMDLINE_SERVER};

use crate::fleet::standing::Asker;

/// The longest kernel command line that Linux keeps on x86 is 2,048 bytes; what is ours takes about 250.
pub const KERNEL_ARGUMENTS_BYTES_MAX: usize = 1500;

/// What cannot be put into a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A kit's name that is not plain.
    #[error("the boot kit's name {0:?} is not made of letters, digits and `.`, `_`, `+`, `-`")]
    KitName(String),
    /// A kernel argument that iPXE would read as something else.
    #[error(
        "the kernel argument {0:?} cannot go through iPXE: it may hold no blank, control character, backslash, `${{`, `||`, `&&` or leading `#` or `;`"
    )]
    Argument(String),
    /// Too many of them.
    #[error("the kernel arguments take {0} bytes, more than {KERNEL_ARGUMENTS_BYTES_MAX}")]
    TooLong(usize),
}

/// Who asks for a script, read from the query of `/boot.ipxe`. Only what has the right form is kept.
///
/// `None` when there is no `mac`: then the answer is [`entry`], which asks again with everything that iPXE
/// knows of its machine.
#[must_use]
pub fn visitor<'q>(query: impl IntoIterator<Item = (&'q str, &'q str)>) -> Option<Asker> {
    let mut asker = Asker::default();
    for (name, value) in query {
        match name {
            "mac" => asker.mac = value.parse::<Mac>().ok(),
            "uuid" => asker.uuid = uuid(value),
            "serial" => asker.serial = serial(value),
            _ => {}
        }
    }
    asker.mac.is_some().then_some(asker)
}

/// A UUID with dashes in any case, to lower case. All zeros and all ones are no UUID: boards whose maker never
/// set one say that.
fn uuid(text: &str) -> Option<String> {
    let dashes = [8, 13, 18, 23];
    let formed = text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() });
    let blank = |digit: u8| text.bytes().all(|byte| byte == b'-' || byte.eq_ignore_ascii_case(&digit));
    (formed && !blank(b'0') && !blank(b'f')).then(|| text.to_ascii_lowercase())
}

/// A serial number of at most 64 printable characters (SMBIOS's own custom).
fn serial(text: &str) -> Option<String> {
    let text = text.trim();
    let formed = !text.is_empty() && text.len() <= 64 && !text.chars().any(char::is_control);
    formed.then(|| text.to_owned())
}

/// The first script, the same for every machine: says who asks, and asks again with it, for ever.
///
/// `netX` is the NIC that iPXE booted from, which `net0` is not on a machine with several. `--replace` makes the
/// answer take this script's place, so that its `exit` reaches the firmware and does not come back here as a
/// failure to try again.
#[must_use]
pub fn entry(server: SocketAddr) -> String {
    let server = url(server);
    format!(
        "#!ipxe\n\
         set wait:int32 2\n\
         :ask\n\
         echo swarmboot: asking {server} what to do, as ${{netX/mac}}\n\
         chain --autofree --replace {server}/boot.ipxe?mac=${{netX/mac:hexhyp}}&uuid=${{uuid}}\
         &serial=${{serial:uristring}}&platform=${{platform}}&buildarch=${{buildarch}} || goto failed\n\
         {}",
        try_again("ask", "no answer from", &server)
    )
}

/// What [`load`] needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The server's boot HTTP, as the machine reaches it.
    pub server: SocketAddr,
    /// The server's key, which the loader believes from here on.
    pub key: &'a PublicKey,
    /// The boot kit's name, as in `/boot/{kit}/`.
    pub kit: &'a str,
    /// Extra kernel arguments from the configuration.
    pub kernel_arguments: &'a [String],
}

/// The script that starts kernel and loader; a failed download asks the server afresh, because what it wants of
/// the machine may have changed meanwhile.
///
/// # Errors
///
/// When kit or arguments could not be carried faithfully; better no machine boots, and the log says why, than
/// forty machines boot with half a command line.
pub fn load(load: &Load<'_>) -> Result<String, ScriptError> {
    checked_kit(load.kit)?;
    let extra = checked_arguments(load.kernel_arguments)?;
    let (server, key, kit) = (url(load.server), load.key, load.kit);
    // `initrd=` is how an EFI kernel finds what iPXE loaded; a BIOS kernel takes no notice of it (pxelinux
    // always sends it). The serial console comes last, so that it is /dev/console: what a rack's admin sees.
    Ok(format!(
        "#!ipxe\n\
         set wait:int32 10\n\
         imgfree\n\
         echo swarmboot: {server} sends the loader to ${{netX/mac}}\n\
         kernel --name vmlinuz {server}/boot/{kit}/vmlinuz initrd=loader.img console=tty0 console=ttyS0,115200 \
         {CMDLINE_SERVER}={server} {CMDLINE_KEY}={key} {CMDLINE_MAC}=${{netX/mac}}{extra} || goto failed\n\
         initrd --name loader.img {server}/boot/{kit}/loader.img || goto failed\n\
         boot || goto failed\n\
         :again\n\
         chain --autofree --replace {server}/boot.ipxe || goto failed\n\
         {}",
        try_again("again", "could not start the loader from", &server)
    ))
}

/// The script that leads a machine to its own disk, saying `because`, a constant of ours.
///
/// On EFI: `exit 1`. The firmware then goes on with its boot order; `exit 0` counts as a success, and EDK2 (and
/// Dell and Lenovo with it) opens its menu instead. iPXE's own way to a disk on EFI is too new to count on and
/// does not know which disk the firmware would take.
///
/// On BIOS: boot drive 0x80 ourselves, because what firmware does after a boot ROM returns differs (the next
/// device, another round of PXE, a halt), while 0x80 is the disk that its own boot order puts first. Should the
/// disk not boot, say so and return to the firmware, which can do no worse.
#[must_use]
pub fn boot_disk(server: SocketAddr, because: &'static str) -> String {
    let server = url(server);
    format!(
        "#!ipxe\n\
         echo swarmboot: {server} sends ${{netX/mac}} to its own disk: {because}\n\
         iseq ${{platform}} efi && goto leave ||\n\
         sanboot --no-describe --drive 0x80 ||\n\
         echo swarmboot: the first disk does not boot; back to the firmware\n\
         :leave\n\
         exit 1\n"
    )
}

/// The script for a machine that is not to be served at all: its own disk, and no more words than needed.
#[must_use]
pub fn ignored(server: SocketAddr) -> String {
    boot_disk(server, "it is not served here")
}

/// Says what failed (iPXE itself has just printed why), waits 2 to 30 seconds, longer each time, and goes on at
/// `label`: forty machines that wait for a server must not flood it when it comes back.
fn try_again(label: &str, what: &str, server: &str) -> String {
    format!(
        ":failed\n\
         echo swarmboot: {what} {server}, see above; ${{netX/mac}} tries again in ${{wait}} s\n\
         sleep ${{wait}} ||\n\
         iseq ${{wait}} 30 || inc wait 4\n\
         goto {label}\n"
    )
}

fn url(server: SocketAddr) -> String {
    match server.ip() {
        IpAddr::V4(ip) => format!("http://{ip}:{}", server.port()),
        IpAddr::V6(ip) => format!("http://[{ip}]:{}", server.port()),
    }
}

fn checked_kit(kit: &str) -> Result<(), ScriptError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    let good = !kit.is_empty() && kit.len() <= 128 && !kit.starts_with('.') && kit.bytes().all(plain);
    if good { Ok(()) } else { Err(ScriptError::KitName(kit.to_owned())) }
}

fn checked_arguments(arguments: &[String]) -> Result<String, ScriptError> {
    let mut text = String::new();
    for argument in arguments {
        let printable = !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_graphic());
        let safe = !["${", "||", "&&", "\\"].iter().any(|special| argument.contains(special))
            && !argument.starts_with(['#', ';']);
        if !(printable && safe) {
            return Err(ScriptError::Argument(argument.clone()));
        }
        text.push(' ');
        text.push_str(argument);
    }
    if text.len() > KERNEL_ARGUMENTS_BYTES_MAX { Err(ScriptError::TooLong(text.len())) } else { Ok(text) }
}
