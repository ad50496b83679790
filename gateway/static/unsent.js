// What was said while the gateway was away: kept in this browser and sent once when it is back. Each message has a key
// of its own, so that one whose answer was lost on the way is not answered twice.

const NAME = (session) => `gatehouse-unsent:${session}`;

export function unsent(session) {
  try {
    return JSON.parse(localStorage.getItem(NAME(session))) ?? [];
  } catch {
    return [];
  }
}

export function keepUnsent(session, message) {
  const kept = unsent(session).filter((one) => one.id !== message.id);
  localStorage.setItem(NAME(session), JSON.stringify([...kept, message]));
}

export function forgetUnsent(session, id) {
  const kept = unsent(session).filter((one) => one.id !== id);
  if (kept.length) localStorage.setItem(NAME(session), JSON.stringify(kept));
  else localStorage.removeItem(NAME(session));
}
