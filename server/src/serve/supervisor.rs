//! The server's tasks by name: started in one place, awaited in one place. A task that ends by itself ends the server,
//! and the error names it, because machines would wait for ever for the part that is missing. Touches tokio's tasks.

use std::error::Error;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;

type Ended = (&'static str, Result<(), Fault>);

/// Cancels three groups of tasks, in this order: the listeners and what the admin follows, the swarm, the fleet.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) outer: CancellationToken,
    pub(crate) inner: CancellationToken,
    pub(crate) last: CancellationToken,
}

/// The running tasks, in the order in which they end: the listeners, the workers that they send to, the last one.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    listeners: JoinSet<Ended>,
    workers: JoinSet<Ended>,
    last: JoinSet<Ended>,
}

impl Supervisor {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Starts a task that takes requests from outside.
    pub(crate) fn listener<E: Error + 'static>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.listeners.spawn(named(name, task));
    }

    /// Starts a task that the listeners send to. It ends when they have.
    pub(crate) fn worker<E: Error + 'static>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.workers.spawn(named(name, task));
    }

    /// Starts the task that ends last, because all others send to it: the fleet.
    pub(crate) fn last<E: Error + 'static>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.last.spawn(named(name, task));
    }

    /// Returns when `stop` does, or with an error when a task ended before that.
    pub(crate) async fn watch(&mut self, stop: impl Future<Output = ()>) -> Result<(), Fault> {
        let ended = tokio::select! {
            () = stop => return Ok(()),
            Some(ended) = self.listeners.join_next() => ended,
            Some(ended) = self.workers.join_next() => ended,
            Some(ended) = self.last.join_next() => ended,
        };
        match ended {
            Ok((name, Err(fault))) => {
                tracing::error!(task = name, "a task failed; the server stops");
                Err(fault)
            }
            Ok((name, Ok(()))) => Err(Fault::failed(format!("the task {name} ended by itself"))),
            Err(error) => Err(Fault::failed("a task ended by itself").because(&error)),
        }
    }

    /// Waits until all listeners are closed.
    pub(crate) async fn listeners_closed(&mut self) {
        while self.listeners.join_next().await.is_some() {}
    }

    /// Waits until all workers have ended.
    pub(crate) async fn workers_ended(&mut self) {
        while self.workers.join_next().await.is_some() {}
    }

    /// Waits until the last task has ended, and returns its error.
    pub(crate) async fn last_ended(&mut self) -> Result<(), Fault> {
        match self.last.join_next().await {
            Some(Ok((_, result))) => result,
            Some(Err(error)) => Err(Fault::failed("the last task failed").because(&error)),
            None => Ok(()),
        }
    }
}

/// Gives a task that cannot fail the type of one that can.
pub(crate) async fn done(task: impl Future<Output = ()>) -> Result<(), std::convert::Infallible> {
    task.await;
    Ok(())
}

async fn named<E: Error + 'static>(name: &'static str, task: impl Future<Output = Result<(), E>>) -> Ended {
    let result = task.await.map_err(|error| Fault::failed(format!("{name} failed")).because(&error));
    (name, result)
}
