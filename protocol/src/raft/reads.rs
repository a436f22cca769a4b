//! Reads without an entry in the log (thesis, section 6.4): by a round of signs of life, or by the lease that such rounds give.
//!
//! Reads that come while a round is under way share the next one, so any number of them costs two rounds at a time.

use super::{Effect, Raft, Refusal};
use crate::entry::{Now, ServerId};

/// The reads of a leader that wait.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// They wait until a quorum has answered a round.
    asking: Option<Batch>,
    /// They wait for the next round, or for this term's first commit.
    waiting: Vec<u64>,
}

#[derive(Debug)]
struct Batch {
    round: u64,
    index: u64,
    tokens: Vec<u64>,
}

impl Reads {
    fn len(&self) -> usize {
        self.waiting.len() + self.asking.as_ref().map_or(0, |batch| batch.tokens.len())
    }

    /// Fails all.
    pub fn fail(self, why: &Refusal, out: &mut Vec<Effect>) {
        let asking = self.asking.into_iter().flat_map(|batch| batch.tokens);
        let failed = asking.chain(self.waiting);
        out.extend(failed.map(|token| Effect::ReadFailed { token, why: why.clone() }));
    }
}

impl Raft {
    /// Until when this leader may answer reads at [`Raft::commit_index`] without asking others. `None`: not at all now;
    /// `Now::MAX`: it is the only voter.
    pub fn lease_until(&self) -> Option<Now> {
        let leading = self.leading.as_ref()?;
        if self.commit < leading.first_index || leading.transfer.is_some() {
            return None;
        }
        let end = |id: ServerId| match leading.peers.get(&id) {
            _ if id == self.options.id => Some(Now::MAX),
            Some(peer) if peer.round >= leading.lease_from && peer.round > 0 => {
                Some(peer.round_began + self.options.lease)
            }
            _ => None,
        };
        self.reached_by_quorum(end)?.filter(|until| *until > self.now)
    }

    pub(super) fn on_read(&mut self, token: u64, out: &mut Vec<Effect>) {
        let limit = self.options.limits.reads_waiting;
        let Some(leading) = &mut self.leading else {
            let why = Refusal::NotLeader { leader: self.leader };
            return out.push(Effect::ReadFailed { token, why });
        };
        if leading.reads.len() >= limit {
            return out.push(Effect::ReadFailed { token, why: Refusal::Overloaded });
        }
        leading.reads.waiting.push(token);
        self.begin_reads(out);
    }

    /// Begins a round for the reads that wait, unless one is under way. Before this term's first commit, the commit index may
    /// be behind what an earlier leader has acknowledged.
    pub(super) fn begin_reads(&mut self, out: &mut Vec<Effect>) {
        let Some(leading) = &mut self.leading else { return };
        let reads = &mut leading.reads;
        if self.commit < leading.first_index || reads.asking.is_some() || reads.waiting.is_empty() {
            return;
        }
        let tokens = std::mem::take(&mut reads.waiting);
        reads.asking = Some(Batch { round: leading.round + 1, index: self.commit, tokens });
        if !self.is_lone_voter() {
            self.begin_round(out);
        }
        self.confirm_reads(out);
    }

    /// Answers the reads whose round a quorum has answered.
    pub(super) fn confirm_reads(&mut self, out: &mut Vec<Effect>) {
        let Some(leading) = &self.leading else { return };
        let Some(batch) = &leading.reads.asking else { return };
        let round = |id: ServerId| match leading.peers.get(&id) {
            _ if id == self.options.id => u64::MAX,
            Some(peer) => peer.round,
            None => 0,
        };
        if self.reached_by_quorum(round).is_none_or(|reached| reached < batch.round) {
            return;
        }
        let Some(batch) = self.leading.as_mut().and_then(|leading| leading.reads.asking.take()) else {
            return;
        };
        let ready = |token| Effect::ReadReady { token, index: batch.index };
        out.extend(batch.tokens.into_iter().map(ready));
        self.begin_reads(out);
    }
}
