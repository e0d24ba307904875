// Asking for an API key where the service wants one.

import { forgetKey, setKey } from "./api.js";
import { $, say } from "./dom.js";

/** Shows the dialog; calls `again` with a key to try. */
export function ask(why, again) {
  const dialog = $("login");
  if (dialog.open) return;
  forgetKey();
  say($("loginwhy"), why);
  $("key").value = "";
  dialog.oncancel = (event) => event.preventDefault(); // without a key there is nothing to see
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    const key = $("key").value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) { // no header could carry it
      say($("loginwhy"), "This cannot be a key: keys are letters, digits and . _ ~ - without blanks.");
      return;
    }
    setKey(key, $("remember").checked);
    dialog.close();
    again();
  };
  dialog.showModal();
  $("key").focus();
}
