"use client";
// react.js: hooks of React for velocity.js. One ES module without a build step; react.d.ts documents it.

import { createContext, createElement, useContext, useMemo, useRef, useState } from "react";
import { useCallback, useEffect, useInsertionEffect, useSyncExternalStore } from "react";
import { connect, RequestError } from "./velocity.js";

const NOTHING_YET = { ws: null, status: "connecting", detail: {} }; // before the first effect, and on a server
const NO_STREAM = { text: "", items: [], end: null, error: undefined };
const FRAME = 16; // ms: what comes within is shown at once, as a screen shows no more
const RENEWED = ["protocols", "refresh"]; // options that are called again and again: those of the latest render

const Context = createContext(null);
const shared = new Map(); // URL, or for one that is a function its component -> connection

export function VelocityProvider({ url, options, children }) {
  return createElement(Context.Provider, { value: useConnection(url, options, true) }, children);
}

export function useVelocity(url, options) {
  const provided = useContext(Context);
  const own = useConnection(url, options, url !== undefined);
  if (url !== undefined) return own;
  if (!provided) throw new Error(remedy('useVelocity("/ws")'));
  return provided;
}

export function useEvent(event, handler, options = {}) {
  const ws = useSocket(options);
  const { room } = options;
  const latest = useLatest(handler);
  useEffect(() => {
    return ws?.on(event, (...args) => {
      if (room === undefined || room === roomOf(event, args)) latest.current(...args);
    });
  }, [ws, event, room, latest]);
}

export function useRoom(room, options = {}) {
  const ws = useSocket(options);
  const latest = useLatest(options);
  const isWatched = useRef(false); // whether `last` is read: if not, messages need no render
  const [known, setKnown] = useState({});
  const current = known.ws === ws && known.room === room ? known : {};

  useEffect(() => {
    if (!ws || room == null) return;
    let isMounted = true;
    let isUsed = true; // whether the client counts this as a use of the room
    let failure; // of the state
    const change = (more) => {
      if (!isMounted) return;
      setKnown((before) => ({ ...(before.ws === ws && before.room === room ? before : { ws, room }), ...more }));
    };
    const joined = (answer) => change({ state: "joined", answer, error: undefined });
    const failed = (error) => {
      isUsed = error !== failure && ws.rooms.includes(room); // then it asks again
      change({ state: isUsed ? "joining" : "refused", error });
    };
    const undo = [
      ws.on("joined", (name, answer) => name === room && isUsed && joined(answer)),
      ws.on("left", (left) => left?.room === room && left.reason && failed(new RequestError(left.reason, "", left))),
      ws.on("status", (status) => status !== "open" && isUsed && change({ state: "joining" })),
      ws.on("*", (event, content, message) => isWatched.current && message.room === room && change({ last: message })),
    ];
    if (!ws.joined.includes(room)) setKnown(askedAgain); // what <Activity> has hidden is shown again with its state
    const { data, state: ofFirst } = latest.current;
    const state = ofFirst && (async () => {
      try {
        await latest.current.state?.();
      } catch (error) {
        throw (failure = error);
      }
    });
    ws.join(room, { data, state }).then(joined, failed);
    return () => {
      isMounted = false;
      // Later, as StrictMode, or what is rendered instead, may join again at once: then nothing is sent.
      setTimeout(() => {
        for (const each of undo) each();
        if (isUsed) ws.leave(room, { state }).catch(() => {}); // it is left in any case, and nobody waits for the answer
      });
    };
  }, [ws, room, latest]);

  return {
    state: room == null ? "idle" : (current.state ?? "joining"),
    answer: current.answer,
    error: current.error,
    get last() {
      isWatched.current = true;
      return current.last;
    },
  };
}

export function useStream(id, options = {}) {
  const ws = useSocket(options);
  const { room } = options;
  const shown = useMemo(() => viewOf(ws && id != null ? ws.stream(id, { room }) : null), [ws, id, room]);
  const view = useSyncExternalStore(shown.subscribe, shown.look, () => NO_STREAM);
  return { ...view, cancel: shown.cancel };
}

export function typedHooks() {
  return { VelocityProvider, useVelocity, useEvent, useRoom, useStream };
}

// --- inside

/** The connection of a URL for as long as the component is mounted, and what is known of it. */
function useConnection(url, options, isWanted) {
  const latest = useLatest({ url, options });
  const key = typeof url === "function" ? latest : String(url);
  const subscribe = useCallback((notify) => (isWanted ? use(key, latest, notify) : () => {}), [key, latest, isWanted]);
  const look = useCallback(() => shared.get(key)?.known ?? NOTHING_YET, [key]);
  return useSyncExternalStore(subscribe, look, () => NOTHING_YET);
}

/** Be one of the users of a connection; it is opened for the first one, and closed after the last one. */
function use(key, latest, notify) {
  if (!shared.has(key)) shared.set(key, open(latest));
  const connection = shared.get(key);
  connection.users.add(notify);
  return () => {
    connection.users.delete(notify);
    setTimeout(() => {
      if (connection.users.size || shared.get(key) !== connection) return; // as StrictMode mounts again at once
      shared.delete(key);
      connection.ws.close();
    });
  };
}

function open(latest) {
  const { url, options } = latest.current;
  const calls = {};
  for (const name of RENEWED) {
    const first = options?.[name];
    if (typeof first === "function") calls[name] = (...args) => (latest.current.options?.[name] ?? first)(...args);
  }
  const address = typeof url === "function" ? () => latest.current.url() : url;
  const ws = connect(address, { ...options, ...calls });
  const connection = { ws, users: new Set(), known: { ws, status: ws.status, detail: {} } };
  ws.on("status", (status, detail) => {
    connection.known = { ws, status, detail };
    for (const notify of [...connection.users]) notify();
  });
  return connection;
}

/** A stream as something to subscribe to, which changes once for all that comes within a moment. */
function viewOf(stream) {
  let view = NO_STREAM;
  return {
    subscribe(notify) {
      let timer;
      const undo = stream?.onChange(() => {
        timer ??= setTimeout(() => {
          timer = undefined;
          notify();
        }, FRAME);
      });
      return () => {
        clearTimeout(timer);
        undo?.();
      };
    },
    look() {
      if (!stream) return view;
      const { text, items, end, error } = stream;
      const isSame = text === view.text && items.length === view.items.length && end === view.end && error === view.error;
      return isSame ? view : (view = { text, items: [...items], end, error });
    },
    async cancel() {
      if (!stream) throw new RequestError("CLOSED", "there is no connection yet");
      return stream.cancel();
    },
  };
}

function useSocket({ ws }) {
  const provided = useContext(Context);
  if (ws !== undefined) return ws; // null is what there is before the first effect
  if (!provided) throw new Error(remedy("{ ws } as the last argument"));
  return provided.ws;
}

function askedAgain(known) {
  return known.state ? { ...known, state: "joining", error: undefined } : known;
}

function useLatest(value) {
  const latest = useRef(value);
  useInsertionEffect(() => {
    latest.current = value; // with the commit: what arrives before other effects run finds it, too
  });
  return latest;
}

function roomOf(event, args) {
  if (event === "joined" || event === "resync") return args[0];
  const message = args.at(-1);
  return message?.room ?? message?.data?.room;
}

function remedy(alternative) {
  return `velocity: no connection here: put <VelocityProvider url="/ws"> around it, or give ${alternative}`;
}
