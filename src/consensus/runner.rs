//! The control core's side of the door.

use std::rc::Rc;
use std::sync::Arc;

use crate::runtime::mesh::{OneSender, Receiver, Sender};
use crate::runtime::publish::Published;
use crate::runtime::task;
use crate::store::command::Applied;
use crate::store::{State, Touched};

use super::ask::Asking;
use super::limits::BATCH_MAX;
use super::proposals::Proposal;
use super::sequencer::Sequencer;
use super::standing::{Role, Standing};

/// Orders and applies what is proposed. Dropping it, or its future, ends all waiting writers as stopping.
pub struct Runner {
    proposed: Receiver<Proposal>,
    published: Published<State>,
    sequencer: Sequencer,
    asking: Option<Asking>,
}

impl Runner {
    pub(super) fn new(proposed: Receiver<Proposal>, asking: Asking, published: Published<State>) -> Runner {
        Runner { proposed, published, sequencer: Sequencer::new(), asking: Some(asking) }
    }

    /// Runs until the last [`super::Proposals`] is gone. `edges` are the registries of parked queries, one per edge
    /// core; one that is full is waited for, one that is closed is passed over.
    pub async fn run(mut self, edges: Vec<Sender<Arc<Touched>>>) {
        if let Some(asking) = self.asking.take() {
            let leads = || Standing { role: Role::Leader, ..Standing::default() };
            task::spawn(asking.run(Rc::new(|_, _| false), leads)).detach();
        }
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut answers = Vec::with_capacity(BATCH_MAX);
        while self.proposed.recv_batch(&mut batch, BATCH_MAX).await {
            let touched = self.apply(&mut batch, &mut answers);
            self.published.store(self.sequencer.state().clone());
            tell_edges(&edges, touched).await;
            for (answer, applied) in answers.drain(..) {
                // A writer that has left meanwhile does not want to know.
                let _ = answer.send(applied);
            }
            task::yield_now().await;
        }
    }

    fn apply(
        &mut self,
        batch: &mut Vec<Proposal>,
        answers: &mut Vec<(OneSender<Applied>, Applied)>,
    ) -> Touched {
        let mut touched = Touched::new();
        for Proposal { encoded, answer, room } in batch.drain(..) {
            let applied = self.sequencer.commit(&encoded, &mut touched);
            answers.push((answer, applied));
            drop(room);
        }
        touched
    }
}

async fn tell_edges(edges: &[Sender<Arc<Touched>>], touched: Touched) {
    if touched.is_empty() {
        return;
    }
    let touched = Arc::new(touched);
    for edge in edges {
        // A closed edge has no queries left to wake.
        let _ = edge.send(touched.clone()).await;
    }
}
