// The login dialog, where the service requires an API key.

import { forgetKey, setKey } from "./api.js";
import { $, setText } from "./dom.js";

/** Shows the dialog with a reason; calls `onKey` once a key was entered. */
export function showLogin(reason, onKey) {
  const dialog = $("login");
  if (dialog.open) return;
  forgetKey();
  setText($("loginwhy"), reason);
  $("key").value = "";
  dialog.oncancel = (event) => event.preventDefault(); // without a key the page can show nothing
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    const key = $("key").value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) { // not valid in a header
      setText($("loginwhy"), "This cannot be a key: keys consist of letters, digits and . _ ~ - without spaces.");
      return;
    }
    setKey(key, $("remember").checked);
    dialog.close();
    onKey();
  };
  dialog.showModal();
  $("key").focus();
}
