//! The agent's end of its control stream: writes the node's messages, and reads the server's messages into the
//! node's inbox. Touches one stream.

use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use common::swarm::frame::{self, BadStream};
use common::wire::swarm::{ToAgent, ToServer};

use super::session::Dial;

/// The server answers every speed report, one each second; silence for this long means that it is gone. Also the
/// timeout of one write.
const SILENCE: Duration = Duration::from_secs(15);

/// What a control stream tells the node, with the dial that opened it.
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

/// Messages that may wait to be written; one more is refused.
pub(super) const WAITING_MAX: usize = 64;

/// Reads and writes until either end closes the stream, and tells the node why it ended.
pub(super) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    dial: Dial,
    mut words: mpsc::Receiver<ToServer>,
    inbox: mpsc::Sender<Inbound>,
) {
    let (mut reader, mut writer) = stream.split();
    let tell = async |word| {
        // Fails only when the node has ended, and this task ends with it.
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
