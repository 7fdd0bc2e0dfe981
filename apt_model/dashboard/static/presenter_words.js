/** The words of the presenter. */

export const PRESENTER_WORDS = {
  "presenter.open": ["讲台：投影给全班看（f）", "Presenter: for the back of the room (f)"],
  "presenter.leave": ["离开讲台（Esc）", "Leave the presenter (Esc)"],
  "presenter.title": ["讲台", "Presenter"],
};
