"use strict";
const one = (id) => document.getElementById(id);
const facts = JSON.parse(one("facts").textContent);
let made = [];
let latest = 0;

one("key-label").hidden = !facts.needsKey;
one("model-label").hidden = facts.models.length < 2;
for (const name of facts.models) one("model").add(new Option(name));

function say(status, problem = "") {
  one("status").textContent = status;
  one("problem").textContent = problem;
}

function address(blob) {
  made.push(URL.createObjectURL(blob));
  return made[made.length - 1];
}

async function problemOf(answer) {
  const told = await answer.json().catch(() => null);
  const message = told?.error?.message ?? `The server answered with ${answer.status}.`;
  if (answer.status === 429) return `The server is busy. ${message}`;
  return message;
}

async function derain(file) {
  const number = ++latest;
  one("result").hidden = true;
  if (file.size > facts.maxBytes) {
    say("", `The file has ${file.size} bytes; at most ${facts.maxBytes} are accepted.`);
    return;
  }
  say("Removing the rain ...");
  const headers = facts.needsKey ? { Authorization: `Bearer ${one("key").value}` } : {};
  let answer;
  try {
    const model = encodeURIComponent(one("model").value);
    answer = await fetch(`v1/derain?model=${model}`, { method: "POST", body: file, headers });
  } catch {
    if (number === latest) say("", "The server does not answer. Is it still running?");
    return;
  }
  const problem = answer.ok ? "" : await problemOf(answer);
  if (number !== latest) return;
  if (problem) return say("", problem);
  const blob = await answer.blob();
  if (number === latest) await show(file, blob);
}

async function show(file, blob) {
  made.splice(0).forEach((it) => URL.revokeObjectURL(it));
  one("before").src = address(file);
  one("after").src = one("download").href = address(blob);
  one("download").download = `derained-${file.name || "image"}`;
  one("result").hidden = false;
  const drawn = await one("after").decode().then(() => true, () => false);
  say(drawn ? "Done." : "Done. This browser does not draw the format; download the result.");
}

document.forms[0].addEventListener("submit", (event) => event.preventDefault());
one("slider").addEventListener("input", (event) => {
  one("compare").style.setProperty("--share", `${event.target.value}%`);
});
one("file").addEventListener("change", (event) => {
  if (event.target.files[0]) derain(event.target.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = event.clipboardData.files[0];
  if (file) derain(file);
});
const main = document.querySelector("main");
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  main.classList.add("over");
});
document.addEventListener("dragleave", () => main.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  main.classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) derain(file);
});
