//! The agent's end of its control stream: writes the node's words and reads the server's into the node's
//! inbox. Touches one stream.

use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use common::swarm::frame::{self, BadStream};
use common::wire::swarm::{ToAgent, ToServer};

use super::session::Dial;

/// The server answers every report of speed, one each two seconds; silence for this long means that it is
/// gone.
const SILENCE: Duration = Duration::from_secs(15);

/// What a control stream tells the node, with the dial that it is of.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) dial: Dial,
    pub(super) word: Word,
}

#[derive(Debug)]
pub(super) enum Word {
    Message(ToAgent),
    Ended(String),
}

/// Words that may wait to be written.
pub(super) const WAITING_MAX: usize = 64;

/// Speaks and listens until either end closes, and tells the node of that end.
pub(super) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    dial: Dial,
    mut words: mpsc::Receiver<ToServer>,
    inbox: mpsc::Sender<Inbound>,
) {
    let (mut reader, mut writer) = stream.split();
    let tell = async |word| {
        // The node ends its streams when it ends.
        inbox.send(Inbound { dial, word }).await.ok();
    };
    let speak = async {
        while let Some(word) = words.recv().await {
            let written = timeout(SILENCE, frame::write(&mut writer, &word)).await;
            written.map_err(|_| BadStream::Stalled(SILENCE.as_secs()))??;
        }
        Ok(())
    };
    let listen = async {
        loop {
            let word = timeout(SILENCE, frame::read(&mut reader)).await;
            let word = word.map_err(|_| BadStream::Stalled(SILENCE.as_secs()))??;
            tell(Word::Message(word)).await;
        }
    };
    let ended: Result<(), BadStream> = tokio::select! {
        ended = listen => ended,
        ended = speak => ended,
    };
    let cause = ended.map_or_else(|error| error.to_string(), |()| "hung up".to_owned());
    tell(Word::Ended(cause)).await;
}
