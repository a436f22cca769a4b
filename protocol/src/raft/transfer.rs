//! Handing leadership over (thesis, section 3.10): on request, when the own disk fails to serve, and when this server is removed.
//!
//! While a leader hands over it takes no drafts and has no lease. The order to campaign may arrive at any later time:
//! a leader that has given a transfer up says so with every message ([`Append::epoch`](super::Append::epoch)), and counts for its lease
//! only those who have heard that, who then refuse the heir.

use std::time::Duration;

use super::leader::Leading;
use super::{Effect, Message, PeerState, Raft, Refusal, StepDown, TimeoutNow};
use crate::entry::{Now, ServerId};

/// A transfer that is under way.
#[derive(Debug)]
pub(super) struct Transfer {
    to: ServerId,
    /// It is given up then.
    pub deadline: Now,
    /// The heir has been told to campaign.
    sent: bool,
    /// Somebody waits to hear of its end.
    asked: bool,
}

impl Transfer {
    /// This server leads no more.
    pub fn end_with_leadership(self, out: &mut Vec<Effect>) {
        let result = if self.sent { Ok(()) } else { Err(Refusal::NotLeader { leader: None }) };
        if self.asked {
            out.push(Effect::TransferDone { result });
        }
    }
}

impl Leading {
    /// The heir may campaign now.
    pub fn is_handing_over(&self, to: ServerId, epoch: u64) -> bool {
        let transfer = self.transfer.as_ref();
        transfer.is_some_and(|transfer| transfer.to == to && transfer.sent) && epoch == self.epoch
    }
}

impl Raft {
    pub(super) fn on_transfer(&mut self, to: Option<ServerId>, out: &mut Vec<Effect>) {
        let result =
            self.heir(to).map(|to| self.begin_transfer(to, self.options.transfer_timeout, true, out));
        if let Err(why) = result {
            out.push(Effect::TransferDone { result: Err(why) });
        }
    }

    fn heir(&self, to: Option<ServerId>) -> Result<ServerId, Refusal> {
        let Some(leading) = &self.leading else { return Err(Refusal::NotLeader { leader: self.leader }) };
        if leading.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        let voters = self.other_voters();
        match to {
            Some(to) if to == self.options.id => Err(Refusal::Invalid("this server leads already")),
            Some(to) if voters.contains(&to) => Ok(to),
            Some(_) => Err(Refusal::Invalid("only a voter can lead")),
            None => self.best_heir().ok_or(Refusal::Invalid("no other voter is ready to lead")),
        }
    }

    /// The voter that answers and has most of the log.
    fn best_heir(&self) -> Option<ServerId> {
        let leading = self.leading.as_ref()?;
        let recent = self.now.saturating_sub(self.options.election_timeout);
        let peers = self.other_voters().into_iter().filter_map(|id| Some((id, leading.peers.get(&id)?)));
        let fit = peers
            .filter(|(_, peer)| peer.contact >= recent && peer.state == PeerState::Replicate && !peer.full);
        fit.max_by_key(|(id, peer)| (peer.durable, *id)).map(|(id, _)| id)
    }

    fn begin_transfer(&mut self, to: ServerId, timeout: Duration, asked: bool, out: &mut Vec<Effect>) {
        let Some(leading) = &mut self.leading else { return };
        leading.transfer = Some(Transfer { to, deadline: self.now + timeout, sent: false, asked });
        self.push_transfer(false, out);
    }

    /// Tells the heir to campaign once it has all of the log; `again` with every round, in case it was lost.
    pub(super) fn push_transfer(&mut self, again: bool, out: &mut Vec<Effect>) {
        let last = self.log.last().index;
        let Some(leading) = &mut self.leading else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        let ready = leading.peers.get(&transfer.to).is_some_and(|peer| peer.durable == last);
        if ready && (again || !transfer.sent) && self.commit >= leading.first_index {
            transfer.sent = true;
            let order = TimeoutNow { term: self.term, epoch: leading.epoch };
            out.push(Effect::Send { to: transfer.to, message: Message::TimeoutNow(order) });
        }
    }

    /// Gives a transfer up when its time is over, and leads on.
    pub(super) fn expire_transfer(&mut self, out: &mut Vec<Effect>) {
        let Some(leading) = &mut self.leading else { return };
        let Some(transfer) = leading.transfer.take_if(|transfer| self.now >= transfer.deadline) else {
            return;
        };
        if transfer.sent {
            // Whoever answers from here on has heard that the heir is not wanted any more.
            leading.epoch += 1;
            leading.lease_from = leading.round + 1;
            self.begin_round(out);
        }
        if transfer.asked {
            out.push(Effect::TransferDone { result: Err(Refusal::TimedOut) });
        }
    }

    /// A leader whose disk is full or stands still lets another lead, if there is one; if a stall goes on it steps down,
    /// provided that the others can go on without it.
    pub(super) fn hand_over_if_due(&mut self, out: &mut Vec<Effect>) {
        let stalled = self.is_stalled();
        let patience = self.options.disk_stall_limit / 2;
        let Some(leading) = &mut self.leading else { return };
        if !stalled && !self.disk.full {
            leading.hand_over_at = None;
            return;
        }
        if leading.transfer.is_some() || leading.hand_over_at.is_some_and(|at| self.now < at) {
            return;
        }
        let tried = leading.hand_over_at.replace(self.now + patience).is_some();
        if stalled && tried && self.others_can_lead() {
            self.become_follower(self.term, StepDown::DiskStalled, out);
        } else if let Some(heir) = self.best_heir() {
            self.begin_transfer(heir, patience, false, out);
            if let (Some(leading), false) = (&mut self.leading, stalled) {
                // A transfer that fails has cost its time of the lease: with a full disk it is not worth that all the time.
                leading.hand_over_at = Some(self.now + patience * 20);
            }
        }
    }

    fn others_can_lead(&self) -> bool {
        let (Some(leading), Some((_, configuration))) = (&self.leading, self.configurations.latest()) else {
            return false;
        };
        let recent = self.now.saturating_sub(self.options.election_timeout);
        let others = configuration.voters().filter_map(|id| leading.peers.get(&id));
        others.filter(|peer| peer.contact >= recent).count() >= configuration.quorum()
    }

    /// Leads no more because the cluster has decided to go on without this server: the best of the others is told to take over.
    pub(super) fn resign(&mut self, out: &mut Vec<Effect>) {
        self.tell_commit(out);
        if let (Some(to), Some(leading)) = (self.best_heir(), &self.leading) {
            let order = TimeoutNow { term: self.term, epoch: leading.epoch };
            out.push(Effect::Send { to, message: Message::TimeoutNow(order) });
        }
        self.become_follower(self.term, StepDown::Removed, out);
    }
}
