"""What an evaluation chose, as a file, and put on a model that is to be served."""

from sae_lens_contrastive.forget_edit.apply import AppliedEdit as AppliedEdit
from sae_lens_contrastive.forget_edit.apply import apply_forget_edit as apply_forget_edit
from sae_lens_contrastive.forget_edit.edit import FORGET_EDIT_FILE as FORGET_EDIT_FILE
from sae_lens_contrastive.forget_edit.edit import ForgetEdit as ForgetEdit
from sae_lens_contrastive.forget_edit.edit import load_forget_edit as load_forget_edit
from sae_lens_contrastive.forget_edit.edit import save_forget_edit as save_forget_edit
from sae_lens_contrastive.forget_edit.generate import SideBySide as SideBySide
from sae_lens_contrastive.forget_edit.generate import side_by_side as side_by_side
