//! Small files that this machine gives out to others of its site while they boot: kernel, loader, bundle, manifest. Held
//! in memory by hash, as many as a part of what is free; given out over HTTP, read-only, to the site's addresses alone.
//! Touches one TCP port and, for what the server tells it to hold, the network.

// The files, and who may have them.
mod held;

// Gives them out over HTTP.
mod serve;

// Fetches what the server says, from neighbours or from it.
mod gather;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fetch::Server;

pub use held::{BootFiles, Hold, Net, changed};

/// How often free memory is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Orders that may wait; a further one is dropped, and given again by the server when its time is over.
const ORDERS_MAX: usize = 8;

/// What is needed to give out files: the port, and the orders.
#[derive(Debug)]
pub struct Keeper {
    files: BootFiles,
    listener: TcpListener,
    orders: mpsc::Receiver<Hold>,
}

/// Opens `address` for machines in `nets`; further ones come with the server's orders.
///
/// # Errors
/// When the address cannot be listened on.
pub fn open(address: SocketAddr, nets: Vec<Net>) -> std::io::Result<(BootFiles, Keeper)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let (ordered, orders) = mpsc::channel(ORDERS_MAX);
    let files = BootFiles::new(held::room(held::available()), nets, port, ordered);
    Ok((files.clone(), Keeper { files, listener, orders }))
}

impl Keeper {
    /// Gives out files, and fetches those that `server` says, until `cancel`.
    pub async fn run(self, server: Server, cancel: CancellationToken) {
        let Self { files, listener, mut orders } = self;
        let gathering = async {
            while let Some(hold) = orders.recv().await {
                gather::gather(&files, hold, &server).await;
            }
        };
        let watching = async {
            loop {
                tokio::time::sleep(LOOK).await;
                files.under(held::available());
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = serve::run(listener, files.clone()) => {}
            () = gathering => {}
            () = watching => {}
        }
    }
}
