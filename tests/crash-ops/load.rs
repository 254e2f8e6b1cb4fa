//! Killed at any moment, again and again, while 64 tenants ask for creations: every answer holds, and every creation ends.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cairn_engine::{Outcome, WorkflowId};
use cairn_tests::{
    client::Client,
    creation::workflow_of,
    extent::{count, recorded},
    oracle::Told,
    program::CairnOptions,
    site::{Numbers, Site, seed},
};
use futures::future::join_all;
use serde_json::{Value, json};

/// Whose clients ask.
const TENANTS: u64 = 64;
/// The longest that the program lives once it is ready, in milliseconds.
const LIFE_MAX: u64 = 300;
/// How many kills there are for one more creation, after the first of each tenant.
const KILLS_A_CREATION: usize = 10;
/// How many clients that were not answered ask again in one life.
const ASKING_AGAIN: usize = 16;
/// How many programs are killed at the same time, each with a cluster, a journal and tenants of its own: a life is waiting, too.
const PLACES: usize = 2;

/// What a client asks for, with a key, and the workflow that it was told of.
struct Creation {
    tenant: String,
    service: String,
    workflow: Option<WorkflowId>,
}

impl Creation {
    /// The workflow that the program says this becomes; none if it died over the answer, or knew that it would.
    async fn ask(&self, client: &Client) -> anyhow::Result<Option<WorkflowId>> {
        let Self { tenant, service, .. } = self;
        let body = json!({ "user": tenant, "service_name": service });
        let Ok(answer) = client.post_with("/clusters", &body, &[("idempotency-key", service)]).await else {
            return Ok(None);
        };
        match answer.status {
            200..300 => workflow_of(&answer).map(Some),
            503 => Ok(None),
            _ => bail!("{tenant}/{service}: {answer:?}"),
        }
    }

    /// Takes an answer in: the same for ever, whoever gave it.
    fn hear(&mut self, answer: Option<WorkflowId>) -> anyhow::Result<()> {
        if let Some(workflow) = answer {
            let before = *self.workflow.get_or_insert(workflow);
            ensure!(before == workflow, "{}/{} became {before}, and then {workflow}", self.tenant, self.service);
        }
        Ok(())
    }
}

/// One life of the program: some clients ask, and it is killed in the midst of it.
async fn life(site: &Site, asking: Vec<&mut Creation>, life: Duration) -> anyhow::Result<()> {
    let cairn = site.cairn(CairnOptions::default()).await?;
    let client = &cairn.client;
    let killed = async {
        // A moment, not a wait for anything: that is what is tried here.
        tokio::time::sleep(life).await;
        cairn.process.kill().await
    };
    let asked = join_all(asking.into_iter().map(|creation| async move {
        let answer = creation.ask(client).await?;
        creation.hear(answer)
    }));
    let (killed, asked) = tokio::join!(killed, asked);
    killed?;
    asked.into_iter().collect()
}

/// What became of the creations in one place.
struct Tally {
    creations: usize,
    answered: usize,
    rolled_back: usize,
}

/// I1, I2, I26, I33: at any moment, under load.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_under_the_load_of_64_tenants_every_creation_ends() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let kills = count(200, 10_000).div_ceil(PLACES);
    let places = (0..PLACES).map(|_| tokio::spawn(killed_so_often(kills, Numbers::of(numbers.bits()))));
    let mut tallies = Vec::new();
    for place in join_all(places).await {
        tallies.push(place??);
    }
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (creations, rolled_back) = (sum(|tally| tally.creations), sum(|tally| tally.rolled_back));
    println!(
        "killed at random {} times: creations {creations}, {} of them answered before the last start, completed {}, \
         rolled back {rolled_back}, violations 0",
        kills * PLACES,
        sum(|tally| tally.answered),
        creations - rolled_back
    );
    recorded("crash-ops-random", kills * PLACES)
}

async fn killed_so_often(kills: usize, mut numbers: Numbers) -> anyhow::Result<Tally> {
    let site = Site::new().await?;
    let new = |number: u64, tenant: u64| Creation {
        tenant: format!("tenant-{tenant}"),
        service: format!("search-{number}"),
        workflow: None,
    };
    let mut creations: Vec<Creation> = (0..TENANTS).map(|number| new(number, number)).collect();
    for kill in 1..=kills {
        if kill.is_multiple_of(KILLS_A_CREATION) {
            creations.push(new(creations.len() as u64, numbers.below(TENANTS)));
        }
        // Who was not answered, and one that was.
        let again = usize::try_from(numbers.below(creations.len() as u64))?;
        let asks = |(at, creation): &(usize, &mut Creation)| creation.workflow.is_none() || *at == again;
        let asking = creations.iter_mut().enumerate().filter(asks).take(ASKING_AGAIN).map(|(_, creation)| creation);
        let lived = life(&site, asking.collect(), Duration::from_millis(numbers.below(LIFE_MAX))).await;
        lived.with_context(|| format!("in life {kill}"))?;
        if kill.is_multiple_of(20) {
            site.verify().await.with_context(|| format!("after kill {kill}"))?;
        }
    }
    let cairn = site.cairn(CairnOptions::default()).await.context("the last start")?;
    let answered = creations.iter().filter(|creation| creation.workflow.is_some()).count();
    let mut told = Vec::new();
    for creation in &mut creations {
        let answer = creation.ask(&cairn.client).await?.context("nobody kills it now")?;
        creation.hear(Some(answer))?;
        let (tenant, service) = (creation.tenant.clone(), creation.service.clone());
        told.push(Told::Accepted { workflow: answer, tenant, service, input: None });
    }
    let mut rolled_back = 0;
    for workflow in creations.iter().filter_map(|creation| creation.workflow) {
        // A step that was interrupted as often as its policy allows has failed, and is taken back.
        let is_over = |workflow: &Value| ["succeeded", "failed"].iter().any(|status| workflow["status"] == *status);
        let ended = cairn.client.workflow_when(&workflow.to_string(), is_over).await?;
        let outcome = if ended["status"] == "failed" { Outcome::Failed } else { Outcome::Succeeded };
        rolled_back += usize::from(outcome == Outcome::Failed);
        told.push(Told::Ended { workflow, outcome });
    }
    site.judge(&cairn.client, told).await?;
    Ok(Tally { creations: creations.len(), answered, rolled_back })
}
