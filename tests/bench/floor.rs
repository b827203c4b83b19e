//! The cost of the libraries alone: a GiB from memory to memory for each of four pairs over libp2p's TCP, noise and
//! yamux on loopback, with nothing of swarmboot around it: no hash, no disk, nothing passed on. An agent cannot use
//! less processor time than that. Touches loopback.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, future};
use libp2p::core::muxing::{StreamMuxer as _, StreamMuxerBox, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::{Endpoint, upgrade::Version};
use libp2p::{PeerId, Transport as _, identity::Keypair, noise, tcp, yamux};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

const PAIRS: u32 = 4;
const BYTES: usize = 1 << 30;
const PIECE: usize = 1 << 20;

type Wire = Boxed<(PeerId, StreamMuxerBox)>;

/// Prints the seconds and the processor time for each GiB received.
///
/// # Errors
/// When a connection cannot be opened, or breaks.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (before, begun) = (processor_seconds()?, Instant::now());
    runtime
        .block_on(async { future::try_join_all((0..PAIRS).map(|_| tokio::spawn(pair()))).await })?
        .into_iter()
        .collect::<Result<Vec<()>>>()?;
    println!(
        "libp2p alone, {PAIRS} pairs, 1 GiB each: {:.1} s, {:.2} CPU-s/GiB",
        begun.elapsed().as_secs_f64(),
        (processor_seconds()? - before) / f64::from(PAIRS)
    );
    Ok(())
}

fn processor_seconds() -> Result<f64> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Ok(std::time::Duration::from_micros(u64::try_from(micros)?).as_secs_f64())
}

/// One node sends a GiB to the other.
async fn pair() -> Result<()> {
    let mut listener = wire()?;
    listener.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let TransportEvent::NewAddress { listen_addr, .. } = listener.select_next_some().await {
            break listen_addr;
        }
    };
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dialled = tokio::spawn(wire()?.dial(address, options)?);
    let accepted = loop {
        if let TransportEvent::Incoming { upgrade, .. } = listener.select_next_some().await {
            break upgrade.await?.1;
        }
    };
    let sending = tokio::spawn(send(dialled.await??.1));
    receive(accepted).await?;
    // The sender's connection has to be polled until here: its end is also the receiver's.
    sending.abort();
    Ok(())
}

fn wire() -> Result<Wire> {
    let keypair = Keypair::generate_ed25519();
    Ok(tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&keypair)?)
        .multiplex(yamux::Config::default())
        .boxed())
}

async fn send(mut muxer: StreamMuxerBox) -> Result<()> {
    let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx)).await?;
    let work = async move {
        let piece = vec![7; PIECE];
        for _ in 0..BYTES / PIECE {
            stream.write_all(&piece).await?;
        }
        stream.flush().await?;
        future::pending::<Result<()>>().await
    };
    driven(muxer, work).await
}

async fn receive(mut muxer: StreamMuxerBox) -> Result<()> {
    let mut stream: SubstreamBox = poll_fn(|cx| {
        let muxer = &mut muxer;
        match Pin::new(&mut *muxer).poll_inbound(cx) {
            Poll::Pending => Pin::new(muxer).poll(cx).map(|event| event.and_then(|_| Err(closed()))),
            ready => ready,
        }
    })
    .await?;
    let work = async move {
        let (mut piece, mut got) = (vec![0; PIECE], 0);
        while got < BYTES {
            let more = stream.read(&mut piece).await?;
            ensure!(more > 0, "the stream ended after {got} bytes");
            got += more;
        }
        Ok(())
    };
    driven(muxer, work).await
}

fn closed() -> std::io::Error {
    std::io::Error::other("the connection said something else first")
}

/// Runs `work` as a task of its own, as swarmboot's streams are, while this one polls the connection.
async fn driven(
    mut muxer: StreamMuxerBox,
    work: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<()> {
    let work = tokio::spawn(work);
    let drive = poll_fn(move |cx| {
        while let Poll::Ready(event) = Pin::new(&mut muxer).poll(cx) {
            if let Err(error) = event {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    });
    tokio::select! {
        done = work => done?,
        error = drive => Err(error).context("the connection broke"),
    }
}
